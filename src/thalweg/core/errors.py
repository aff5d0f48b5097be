"""The errors and warnings that Thalweg raises: each says what was wrong, where, and what to do."""


class ThalwegError(Exception):
    """The base of every error that is Thalweg's own."""


class RunFileError(ThalwegError):
    """A run file, or a folder of them, can't be read or written as asked."""


class DataError(ThalwegError):
    """A data set can't be fetched or read, or isn't the one that its checksum names."""


class UsageError(ThalwegError, ValueError):
    """An argument has a value that can't be used."""


class MissingTorch(ThalwegError, AttributeError):  # noqa: N818 - it names what is missing
    """A name that needs PyTorch was asked for where PyTorch is not installed.

    An ``AttributeError``, so that ``hasattr``, ``help`` and ``from thalweg import *`` go on working. (CPython lets
    no class be an ``ImportError`` as well: their layouts differ. ``from thalweg import watch`` raises
    `MissingExtra`, which is an ``ImportError``, with the same words.)
    """


class MissingExtra(ThalwegError, ImportError):  # noqa: N818 - it names what is missing
    """An optional dependency is needed and absent; the message names the extra that brings it."""


class ThalwegWarning(UserWarning):
    """Something in a watched run could not be recorded, or was recorded in part; the run itself goes on."""
