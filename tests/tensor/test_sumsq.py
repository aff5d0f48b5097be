"""Sums of squares and products against float64 by hand: any shape, type, layout and size."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from thalweg.tensor.sumsq import CHUNK, dots, sumsq

REAL = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
DTYPES = (*REAL, torch.complex64, torch.complex128)


def exact(tensor: Tensor) -> float:
    """The sum of squares by NumPy in float64, of the tensor's logical entries."""
    tensor = tensor.detach().to_dense() if tensor.layout is not torch.strided else tensor.detach()
    if tensor.is_complex():
        tensor = torch.view_as_real(tensor.resolve_conj())
    return float(np.sum(tensor.double().numpy() ** 2))


def product(a: Tensor, b: Tensor) -> float:
    a, b = (t.detach().to_dense() if t.layout is not torch.strided else t.detach() for t in (a, b))
    kind = torch.complex128 if a.is_complex() else torch.float64
    return float((a.to(kind) * b.to(kind).conj()).sum().real)


def arranged(shape: tuple[int, ...], dtype: torch.dtype, how: str, seed: int) -> Tensor:
    """A random tensor of this shape whose memory is laid out in some way."""
    generator = torch.Generator().manual_seed(seed)
    kind = dtype if dtype.is_complex else torch.float32
    if how == "transposed":
        made = torch.randn(*reversed(shape), generator=generator, dtype=kind)
        return made.permute(*reversed(range(len(shape)))).to(dtype)
    if how == "strided":
        return torch.randn(*shape[:-1], 2 * shape[-1] + 1, generator=generator, dtype=kind).to(dtype)[
            ..., 1::2
        ]
    if how == "expanded":
        return torch.randn(*shape[:-1], 1, generator=generator, dtype=kind).to(dtype).expand(shape)
    made = torch.randn(*shape, generator=generator, dtype=kind).to(dtype)
    if how == "channels_last" and len(shape) == 4:
        return made.contiguous(memory_format=torch.channels_last)
    return made


SHAPES = st.lists(st.integers(0, 7), min_size=1, max_size=5).map(tuple)
LAYOUTS = st.sampled_from(["plain", "transposed", "strided", "expanded", "channels_last"])


@settings(deadline=None, max_examples=150)
@given(st.lists(st.tuples(SHAPES, st.sampled_from(DTYPES), LAYOUTS), max_size=5), st.integers(0, 99))
def test_sumsq_is_the_float64_sum(kinds: list[tuple[tuple[int, ...], torch.dtype, str]], seed: int) -> None:
    tensors = [arranged(*kind, seed + i) for i, kind in enumerate(kinds)]
    found = sumsq(tensors)
    assert found.shape == (len(tensors),)
    assert found.dtype == torch.float64
    np.testing.assert_allclose(found.numpy(), [exact(t) for t in tensors], rtol=2e-6, atol=0)


@settings(deadline=None, max_examples=100)
@given(SHAPES, st.sampled_from(DTYPES), LAYOUTS, LAYOUTS, st.integers(0, 99))
def test_dots_pairs_coordinates_whatever_the_strides(
    shape: tuple[int, ...], dtype: torch.dtype, how: str, other: str, seed: int
) -> None:
    a, b = arranged(shape, dtype, how, seed), arranged(shape, dtype, other, seed + 1)
    found = float(dots([a], [b]))
    scale = np.sqrt(exact(a) * exact(b))
    assert found == pytest.approx(product(a, b), abs=2e-6 * scale)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_scalars_and_empty_tensors_and_lists(dtype: torch.dtype) -> None:
    assert sumsq([]).shape == dots([], []).shape == (0,)
    three = torch.tensor(3.0).to(dtype)
    empty = torch.zeros(0, 4, dtype=dtype)
    assert sumsq([three, empty, torch.zeros(3, 0, 2, dtype=dtype).permute(2, 0, 1)]).tolist() == [9, 0, 0]
    assert dots([three, empty], [three, empty]).tolist() == [9, 0]


def test_uncoalesced_duplicates_are_added_before_they_are_squared() -> None:
    sparse = torch.sparse_coo_tensor(torch.tensor([[1, 1, 3]]), torch.tensor([[1.0], [2.0], [4.0]]), (5, 1))
    assert sumsq([sparse]).tolist() == [9 + 16]
    assert not sparse.is_coalesced(), "the gradient itself was changed"


def test_compressed_sparse_layouts() -> None:
    full = torch.randn(6, 6, generator=torch.Generator().manual_seed(0)).relu()
    for sparse in (full.to_sparse_csr(), full.to_sparse_csc(), full.to_sparse_bsr((2, 3))):
        assert float(sumsq([sparse])) == pytest.approx(exact(full), rel=1e-6)


def test_dots_of_sparse_tensors_with_other_entries() -> None:
    a = torch.sparse_coo_tensor([[0, 1]], [1.0, 2.0], (4,))
    b = torch.sparse_coo_tensor([[1, 2]], [3.0, 5.0], (4,))
    assert dots([a, a], [b, torch.ones(4)]).tolist() == [6, 3]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_finite_entries_whose_square_overflows_float32(dtype: torch.dtype) -> None:
    huge = torch.tensor([1e25, -3e30, 2.0]).to(dtype)
    found = sumsq([huge, torch.ones(2)])
    np.testing.assert_allclose(found.numpy(), [exact(huge), 2], rtol=1e-6)
    opposite = torch.tensor([1e25, 1e25]).to(dtype)
    assert float(dots([opposite], [torch.tensor([1e25, -1e25]).to(dtype)])) == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_entries_whose_square_vanishes_in_float32(dtype: torch.dtype) -> None:
    tiny = torch.full((5,), 1e-25).to(dtype)
    assert float(sumsq([tiny])) == pytest.approx(exact(tiny), rel=1e-6)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("dtype", REAL, ids=str)
def test_a_bad_entry_spoils_its_own_sum_only(bad: float, dtype: torch.dtype) -> None:
    poisoned = torch.ones(9, dtype=dtype)
    poisoned[4] = bad
    found = sumsq([torch.ones(3, dtype=dtype), poisoned, torch.ones(4)])
    assert found[0] == 3
    assert found[2] == 4
    assert torch.isnan(found[1]) if np.isnan(bad) else found[1] == float("inf")


def test_conjugate_and_negative_views() -> None:
    z = torch.randn(6, dtype=torch.complex64, generator=torch.Generator().manual_seed(0))
    assert float(sumsq([z.conj()])) == pytest.approx(exact(z), rel=1e-6)
    assert float(sumsq([z.conj().imag])) == pytest.approx(exact(z.imag), rel=1e-6)
    assert float(dots([z.conj()], [z])) == pytest.approx(float((z * z).sum().real), rel=1e-4)


def test_a_parameter_that_needs_a_gradient() -> None:
    parameter = torch.nn.Parameter(torch.full((3,), 2.0))
    found = sumsq([parameter])
    assert found.tolist() == [12]
    assert not found.requires_grad


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_ten_million_entries_to_a_millionth(dtype: torch.dtype) -> None:
    x = torch.rand(10_000_000, generator=torch.Generator().manual_seed(0)).add_(0.5).to(dtype)
    blocks = [float((part.double() ** 2).sum()) for part in x.split(1_000_000)]
    assert float(sumsq([x])) == pytest.approx(sum(blocks), rel=1e-6)
    assert float(dots([x], [x])) == pytest.approx(sum(blocks), rel=1e-6)


@pytest.mark.parametrize("size", [CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK])
def test_nothing_is_lost_at_the_edges_of_chunks(size: int) -> None:
    assert sumsq([torch.ones(size), torch.ones(size, dtype=torch.float16)]).tolist() == [size, size]


def test_pairs_must_match() -> None:
    with pytest.raises(ValueError, match="zip"):
        dots([torch.ones(2)], [])
