"""The command line: ``thalweg`` or ``python -m thalweg``. A command is a file; none of them imports PyTorch."""

from thalweg.cli.entry import main

__all__ = ["main"]
