"""Thalweg in other people's loops: Hugging Face Trainer, Lightning, Accelerate.

Each module is imported by its own name (``from thalweg.integrations.lightning import ThalwegCallback``) and needs
the library it is named after; without it, the import raises `MissingExtra`, which names the extra that brings it.
"""
