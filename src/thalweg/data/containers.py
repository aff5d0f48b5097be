"""What loading a data set returns: images with labels, text, or a corpus of documents."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from thalweg.core.errors import UsageError


@dataclass(frozen=True, eq=False)
class Images:
    """Labeled images, in a part to train on and a part to test on.

    Attributes:
        x_train: uint8 [n, height, width, channels]; 0 to 255 unless the set says otherwise.
        y_train: int64 [n], the class of each.
        x_test: uint8 [m, height, width, channels].
        y_test: int64 [m].
        classes: name of each class.
    """

    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    classes: tuple[str, ...]

    def subset(self, n: int, seed: int = 0) -> "Images":
        """Return the same set with only `n` of the training images; the test images stay.

        The classes are balanced: their counts differ by one at most. The same seed gives the same images with
        every NumPy version, in shuffled order, and a larger `n` of the same seed contains a smaller one.

        Raises:
            UsageError: `n` is below 1, or a class has too few images.
        """
        chosen = _balanced(self.y_train, len(self.classes), n, np.random.RandomState(seed))
        return replace(self, x_train=self.x_train[chosen], y_train=self.y_train[chosen])


@dataclass(frozen=True, eq=False)
class Text:
    """A text, for models of characters.

    Attributes:
        text: the characters.
        symbols: the alphabet, sorted; a character's code is its place here.
    """

    text: str
    symbols: str

    @classmethod
    def of(cls, text: str) -> "Text":
        """Make one whose alphabet is the characters that occur in `text`."""
        return cls(text, "".join(sorted(set(text))))

    def __len__(self) -> int:
        return len(self.text)

    def tokens(self) -> np.ndarray:
        """Return the code of each character, in the smallest type that holds them: uint8 up to 256 symbols.

        Raises:
            UsageError: a character isn't in the alphabet.
        """
        points, alphabet = _code_points(self.text), _code_points(self.symbols)
        unknown = len(alphabet)
        codes = np.full(max(points.max(initial=0), alphabet.max(initial=0)) + 1, unknown, np.int32)
        codes[alphabet] = np.arange(len(alphabet))
        tokens: np.ndarray = codes[points]
        if (missing := tokens == unknown).any():
            raise UsageError(
                f"the character {chr(points[missing.argmax()])!r} is not among the text's symbols"
            )
        return tokens.astype(np.min_scalar_type(max(unknown - 1, 0)))

    def decode(self, tokens: np.ndarray) -> str:
        """Return the characters that these codes stand for."""
        points: np.ndarray = _code_points(self.symbols)[np.asarray(tokens)]
        return points.tobytes().decode("utf-32-le")

    def split(self, validation: float = 0.1) -> "tuple[Text, Text]":
        """Return a part to train on and a part to validate on: the end of the text, with the same alphabet.

        Cut by position and not shuffled: neighboring pieces of one play share names and phrases.

        Args:
            validation: share of the characters in the second part; a tenth is the custom for small texts.

        Raises:
            UsageError: `validation` is not between 0 and 1.
        """
        if not 0 < validation < 1:
            raise UsageError(f"validation must be between 0 and 1, not {validation}")
        cut = len(self.text) - round(validation * len(self.text))
        return Text(self.text[:cut], self.symbols), Text(self.text[cut:], self.symbols)

    def subset(self, n: int, seed: int = 0) -> "Text":
        """Return one piece of `n` characters in a row, from a seeded place, with the same alphabet.

        Raises:
            UsageError: `n` is below 1 or beyond the length.
        """
        if not 1 <= n <= len(self.text):
            raise UsageError(f"a piece of {n} characters can't be taken from {len(self.text)}")
        start = np.random.RandomState(seed).randint(len(self.text) - n + 1)
        return Text(self.text[start : start + n], self.symbols)


@dataclass(frozen=True, eq=False)
class Corpus:
    """Documents, each with a name and a genre.

    Attributes:
        names: name of each document.
        genres: genre of each document.
        texts: the words of each document, separated by single spaces.
    """

    names: tuple[str, ...]
    genres: tuple[str, ...]
    texts: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.names)

    def __iter__(self) -> Iterator[tuple[str, str, str]]:
        return iter(zip(self.names, self.genres, self.texts, strict=True))

    def joined(self, genre: str | None = None) -> Text:
        """Return all documents, or those of one genre, as one text, an empty line between two.

        The alphabet is that of the whole corpus, so that genres can follow each other as tasks.

        Raises:
            UsageError: no document has this genre; the message lists them.
        """
        if genre is not None and genre not in self.genres:
            raise UsageError(
                f"no document has the genre {genre!r}; there are: {', '.join(sorted(set(self.genres)))}"
            )
        chosen = [text for _, kind, text in self if genre in (None, kind)]
        return Text("\n\n".join(chosen), "".join(sorted({"\n"}.union(*self.texts))))


def _balanced(labels: np.ndarray, classes: int, n: int, random: np.random.RandomState) -> np.ndarray:
    """Indices of `n` examples, as many of each class as of any other (or one more), shuffled."""
    if n < 1:
        raise UsageError(f"a subset needs at least one example, not {n}")
    wanted = np.full(classes, n // classes)
    wanted[random.permutation(classes)[: n % classes]] += 1
    chosen = []
    for label in range(classes):
        members = random.permutation(np.flatnonzero(labels == label))
        if len(members) < wanted[label]:
            raise UsageError(
                f"a balanced subset of {n} needs {wanted[label]} examples of class {label}, not {len(members)}"
            )
        chosen.append(members[: wanted[label]])
    return random.permutation(np.concatenate(chosen))


def _code_points(text: str) -> np.ndarray:
    return np.frombuffer(text.encode("utf-32-le"), np.uint32)
