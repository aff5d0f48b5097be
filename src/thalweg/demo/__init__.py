"""The demonstration behind ``thalweg demo``: two small networks trained and watched, and a training that goes wrong."""

from thalweg.demo.showing import run_demo

__all__ = ["run_demo"]
