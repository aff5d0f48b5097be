r"""Sums of squares and of products, one number a tensor, correct for every dtype, size and range.

.. math:: \mathrm{sumsq}(x) = \sum_i x_i^2, \qquad \mathrm{dot}(x, y) = \sum_i x_i y_i

What goes wrong elsewhere, each measured: half-precision sums round at every addition; one float32 accumulator
over 10 million entries is off in the fifth digit, so long tensors are summed in chunks; a finite entry above
1.8e19 overflows when squared in float32, one below 1e-19 vanishes; empty lists raise in ``torch._foreach_norm``.

The result is float64 on devices that have it (float32 on Apple's MPS). Nothing synchronises: on an accelerator
the sums are taken in float64 by the reduction itself; on the CPU, where reading a value costs nothing, a
float32 sum that came near either end of the range is taken again in float64.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from thalweg.tensor.local import dense, flat, local, logical

CHUNK = 1 << 18
"""Elements summed into one float32 partial sum on the CPU: keeps the relative error near 1e-7."""

_PLAIN = (Tensor, torch.nn.Parameter)
_DOT_TYPES = (torch.float32, torch.float64)
_FLOAT32_SAFE = (1e-30, 1e37)
"""Sums outside this range may have overflowed, or lost entries whose square is too small for float32."""


def accumulator_dtype(device: torch.device) -> torch.dtype:
    """The type sums are kept in on a device: float64, or float32 where there is no float64."""
    return torch.float32 if device.type == "mps" else torch.float64


def sumsq(tensors: Sequence[Tensor]) -> Tensor:
    """Sum of squared entries of each tensor.

    Args:
        tensors: any mixture of shapes, dtypes and layouts (dense, sparse, complex, ``DTensor``), of one device;
            of a ``DTensor`` only this rank's shard is summed.

    Returns:
        [len(tensors)], float64 (float32 on MPS), on the tensors' device; on the CPU for an empty list. A NaN or
        infinite entry gives NaN or infinity in its place and in no other.
    """
    if not tensors or tensors[0].device.type == "cpu":
        return torch.tensor(host_sumsq(tensors), dtype=torch.float64)
    parts = [flat(local(t)) for t in tensors]
    dtype = accumulator_dtype(parts[0].device)
    return torch.stack([torch.linalg.vector_norm(p, dtype=dtype) for p in parts]).square()


def host_sumsq(tensors: Sequence[Tensor]) -> list[float]:
    """`sumsq` of tensors on the CPU, as Python floats: there the host has each sum at once."""
    return [_plain_sum(t) if type(t) in _PLAIN and t.dtype is torch.float32 else _any_sum(t) for t in tensors]


def _plain_sum(tensor: Tensor) -> float:
    """The common case with as few calls as can be: inside a training loop each costs microseconds."""
    try:
        elements = tensor.view(-1)
        if elements.numel() <= CHUNK:
            total = torch.dot(elements, elements).item()
            if _FLOAT32_SAFE[0] < total < _FLOAT32_SAFE[1]:
                return total
    except RuntimeError:  # not contiguous, or sparse
        pass
    return _any_sum(tensor)


def _any_sum(tensor: Tensor) -> float:
    elements = flat(local(tensor))
    return _host_dot(elements, elements)


def dots(left: Sequence[Tensor], right: Sequence[Tensor]) -> Tensor:
    """Sum of the products of the entries of each pair of tensors.

    Args:
        left: tensors of one device.
        right: as many, of the same shapes. Sparse ones are made dense, since their entries need not be the same.

    Returns:
        [len(left)], as `sumsq`; of complex tensors the real part of :math:`\\sum_i x_i \\bar y_i`.
    """
    if not left:
        return torch.zeros(0, dtype=torch.float64)
    pairs = [(logical(local(dense(a))), logical(local(dense(b)))) for a, b in zip(left, right, strict=True)]
    if pairs[0][0].device.type == "cpu":
        return torch.tensor([_host_dot(a, b) for a, b in pairs], dtype=torch.float64)
    dtype = accumulator_dtype(pairs[0][0].device)
    return torch.stack([torch.sum(a.to(dtype) * b.to(dtype)) for a, b in pairs])


def _host_dot(a: Tensor, b: Tensor) -> float:
    """One sum on the CPU, as a Python float (float64)."""
    plain = b.dtype == a.dtype and a.dtype in _DOT_TYPES
    total = _chunked(torch.dot if plain else _pairwise, a, b)
    smallest, largest = _FLOAT32_SAFE
    if smallest < abs(total) < largest or a.dtype is b.dtype is torch.float64:
        return total
    return _chunked(_wide, a, b)


def _chunked(dot: Callable[[Tensor, Tensor], Tensor], a: Tensor, b: Tensor) -> float:
    if a.numel() <= CHUNK:
        return dot(a, b).item()
    pairs = zip(torch.split(a, CHUNK), torch.split(b, CHUNK), strict=True)
    return sum(dot(x, y).item() for x, y in pairs)


def _pairwise(a: Tensor, b: Tensor) -> Tensor:
    """Products of half-precision entries have so few digits that a running sum rounds them all the same way."""
    return torch.mul(a.float(), b.float()).sum()


def _wide(a: Tensor, b: Tensor) -> Tensor:
    return torch.dot(a.double(), b.double())
