"""What the fuzz tests of the importers share: files with something broken, and what must hold of any of them."""

import random
from pathlib import Path

from thalweg.core.errors import RunFileError
from thalweg.record.importing import Importer, NameMap
from thalweg.record.importing.assembling import assemble
from thalweg.record.run import Run


def mutated(data: bytes, rng: random.Random, *, shift: bool = True) -> bytes:
    """A file with some bytes changed; removed, repeated or inserted as well if they may shift."""
    out = bytearray(data)
    for _ in range(rng.randint(1, 8)):
        at, size = rng.randrange(len(out) + 1), rng.choice((1, 1, 1, 4, 40, 400))
        how = rng.randrange(5) if shift else rng.choice((0, 4))
        if how == 0:
            out[at : at + size] = rng.randbytes(min(size, len(out) - at))
        elif how == 1:
            del out[at : at + size]
        elif how == 2:
            out[at:at] = out[max(0, at - size) : at]
        elif how == 3:
            out[at:at] = rng.choice((bytes(size), b"\xff" * size, rng.randbytes(size)))
        elif out:
            out[at % len(out)] ^= 1 << rng.randrange(8)
    return bytes(out)


def read_or_refused(path: Path, importer: Importer) -> bool:
    """Read all there is; whether it could be read. Any other exception than a clear refusal fails the test."""
    assert 0 <= importer.accepts(path) <= 1
    try:
        for one in importer.read(path, NameMap()):
            source = assemble(one, NameMap())
            run = Run(path, lambda _, source=source: [source])
            for name in run.names():
                assert len(run[name].steps) == len(run[name].values) == len(run[name].times)
    except RunFileError as error:
        assert str(error)
        return False
    return True
