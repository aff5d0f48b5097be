"""The error for a library that an integration needs and that is not installed."""

from thalweg.core.errors import MissingExtra


def explained(error: ImportError, library: str, extra: str) -> ImportError:
    """`MissingExtra` in words if ``library`` itself is absent; the error as it is if the library is broken.

    >>> str(explained(ModuleNotFoundError("No module", name="lightning"), "lightning", "lightning"))
    "this integration needs lightning, which is not installed here: pip install 'thalweg[lightning]'"
    """
    if isinstance(error, ModuleNotFoundError) and (error.name or "").split(".")[0] == library:
        return MissingExtra(
            f"this integration needs {library}, which is not installed here: pip install 'thalweg[{extra}]'"
        )
    return error
