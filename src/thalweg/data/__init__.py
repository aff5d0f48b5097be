"""Real data sets as NumPy arrays: some come inside Python packages, others are fetched once and kept.

``tw.data.sets()`` lists them; each has a function of its name that loads it.
"""

from typing import TYPE_CHECKING

from thalweg.core.lazy import attach

if TYPE_CHECKING:
    from thalweg.data.cache import cache_dir as cache_dir
    from thalweg.data.containers import Corpus as Corpus
    from thalweg.data.containers import Images as Images
    from thalweg.data.containers import Text as Text
    from thalweg.data.fetching import fetch as fetch
    from thalweg.data.loaders.brown_corpus import brown as brown
    from thalweg.data.loaders.cifar10_images import cifar10 as cifar10
    from thalweg.data.loaders.fashion_mnist_images import fashion_mnist as fashion_mnist
    from thalweg.data.loaders.mnist_images import mnist as mnist
    from thalweg.data.loaders.mnist_sample import mnist_5k as mnist_5k
    from thalweg.data.loaders.python_library import python_source as python_source
    from thalweg.data.loaders.shakespeare_plays import shakespeare as shakespeare
    from thalweg.data.loaders.small_digits import digits_8x8 as digits_8x8
    from thalweg.data.registry import sets as sets
    from thalweg.data.sources import DataSet as DataSet
else:
    __getattr__, __dir__, __all__ = attach(
        __name__,
        {
            "Corpus": "thalweg.data.containers",
            "DataSet": "thalweg.data.sources",
            "Images": "thalweg.data.containers",
            "Text": "thalweg.data.containers",
            "brown": "thalweg.data.loaders.brown_corpus",
            "cache_dir": "thalweg.data.cache",
            "cifar10": "thalweg.data.loaders.cifar10_images",
            "digits_8x8": "thalweg.data.loaders.small_digits",
            "fashion_mnist": "thalweg.data.loaders.fashion_mnist_images",
            "fetch": "thalweg.data.fetching",
            "mnist": "thalweg.data.loaders.mnist_images",
            "mnist_5k": "thalweg.data.loaders.mnist_sample",
            "python_source": "thalweg.data.loaders.python_library",
            "sets": "thalweg.data.registry",
            "shakespeare": "thalweg.data.loaders.shakespeare_plays",
        },
    )
