"""The list of data sets: one file a set in ``thalweg/data/loaders``, each with its description in ``DATASET``."""

from importlib import import_module
from pkgutil import iter_modules

from thalweg.core.errors import UsageError
from thalweg.data import loaders
from thalweg.data.sources import DataSet


def sets() -> list[DataSet]:
    """Return the description of every data set, by name. Nothing is loaded or fetched."""
    modules = [import_module(f"{loaders.__name__}.{found.name}") for found in iter_modules(loaders.__path__)]
    return sorted((module.DATASET for module in modules), key=lambda dataset: dataset.name)


def find(name: str) -> DataSet:
    """Return the description of the data set with this name.

    Raises:
        UsageError: there is none; the message lists the names.
    """
    known = {dataset.name: dataset for dataset in sets()}
    if name not in known:
        raise UsageError(f"no data set is called {name!r}; there are: {', '.join(known)}")
    return known[name]
