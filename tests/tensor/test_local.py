"""The local part of a tensor: shards of a DTensor, values of sparse tensors, memory order."""

from collections.abc import Iterator

import pytest
import torch
import torch.distributed as dist
from torch import nn

from thalweg.tensor.local import flat, is_distributed, is_sharded, local, logical
from thalweg.tensor.ranks import rank_and_world
from thalweg.tensor.sumsq import sumsq
from thalweg.tensor.table import build_table


@pytest.fixture
def mesh() -> Iterator[object]:
    from torch.distributed.device_mesh import init_device_mesh

    dist.init_process_group("gloo", rank=0, world_size=1, store=dist.HashStore())
    yield init_device_mesh("cpu", (1,))
    dist.destroy_process_group()


def test_a_plain_tensor_is_neither_distributed_nor_copied() -> None:
    x = torch.randn(3, 4)
    assert not is_distributed(x)
    assert not is_sharded(x)
    assert local(x).data_ptr() == x.data_ptr()


def test_shards_replicas_and_partial_sums(mesh: object) -> None:
    from torch.distributed.tensor import DTensor, Partial, Replicate, Shard

    x = torch.arange(6.0).reshape(2, 3)
    sharded = DTensor.from_local(x, mesh, [Shard(0)])
    replica = DTensor.from_local(x, mesh, [Replicate()])
    partial = DTensor.from_local(x, mesh, [Partial()])
    assert [is_sharded(t) for t in (sharded, replica, partial)] == [True, False, True]
    for tensor in (sharded, replica, partial, nn.Parameter(sharded)):
        assert is_distributed(tensor)
        assert type(local(tensor)) is torch.Tensor
        assert torch.equal(local(tensor), x)
        assert float(sumsq([tensor])) == float((x**2).sum())


def test_the_table_of_a_sharded_model_says_so(mesh: object) -> None:
    from torch.distributed.fsdp import fully_shard

    model = nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 2))
    whole = sum(p.numel() for p in model.parameters())
    fully_shard(model, mesh=mesh)
    table = build_table(model, torch.optim.SGD(model.parameters(), lr=0.1))
    assert table.names == ("0.weight", "0.bias", "1.weight", "1.bias")
    assert all(row.sharded for row in table.rows)
    assert (table.elements, table.bytes) == (whole, 4 * whole)


def test_rank_and_world(mesh: object) -> None:
    assert rank_and_world() == (0, 1)


def test_without_a_process_group() -> None:
    assert rank_and_world() == (0, 1)


@pytest.mark.parametrize(
    "tensor",
    [
        torch.randn(2, 3, 4, 5).contiguous(memory_format=torch.channels_last),
        torch.randn(4, 5).t(),
        torch.randn(3, 1, 4).permute(2, 1, 0),
        torch.randn(10)[3:7],
    ],
    ids=["channels last", "transposed", "with a dimension of one", "slice"],
)
def test_dense_memory_is_read_without_a_copy(tensor: torch.Tensor) -> None:
    assert flat(tensor).data_ptr() == tensor.data_ptr()
    assert torch.equal(flat(tensor).sort().values, tensor.reshape(-1).sort().values)
    assert torch.equal(logical(tensor), tensor.reshape(-1))


def test_gaps_and_repeats_are_not_read_as_entries() -> None:
    gaps = torch.arange(12.0).reshape(3, 4)[:, ::2]
    repeats = torch.ones(3, 1).expand(3, 4)
    assert flat(gaps).tolist() == [0, 2, 4, 6, 8, 10]
    assert flat(repeats).tolist() == [1] * 12


def test_complex_and_sparse_become_real_and_dense() -> None:
    z = torch.tensor([1 + 2j, 3 - 1j])
    assert local(z).tolist() == [[1, 2], [3, -1]]
    assert local(z.conj()).tolist() == [[1, -2], [3, 1]]
    twice = torch.sparse_coo_tensor(torch.tensor([[0, 0]]), [1.0, 2.0], (3,))
    assert local(twice).tolist() == [3]
