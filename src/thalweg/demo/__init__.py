"""The demonstration behind ``thalweg demo``: two small networks trained and watched on real data."""

from thalweg.demo.showing import run_demo

__all__ = ["run_demo"]
