"""The part of a tensor that lives on this rank, as plain dense memory.

A sharded parameter (``DTensor``) is read through its local shard, a sparse gradient through its coalesced
values, a complex tensor through its real view: what comes out can be summed element by element.
"""

import math
from typing import cast

import torch
from torch import Tensor

_PLAIN = (Tensor, torch.nn.Parameter)


def is_distributed(tensor: Tensor) -> bool:
    """Whether the tensor is a ``DTensor`` (FSDP2, tensor parallel)."""
    return hasattr(tensor, "_local_tensor") and hasattr(tensor, "placements")


def is_sharded(tensor: Tensor) -> bool:
    """Whether this rank holds only a part of the tensor (a ``DTensor`` with a placement that is not a replica)."""
    return is_distributed(tensor) and not all(p.is_replicate() for p in tensor.placements)  # type: ignore[attr-defined]  # DTensor only


def mesh_size(tensor: Tensor) -> int:
    """How many ranks a ``DTensor`` is spread over, replicas included; 1 for a plain tensor."""
    return int(tensor.device_mesh.size()) if is_distributed(tensor) else 1  # type: ignore[attr-defined]  # DTensor only


def counts_here(tensor: Tensor, rank: int) -> bool:
    """Whether sums over all ranks count this rank's elements: of replicas only the first ones are counted."""
    if not is_distributed(tensor):
        return rank == 0
    mesh, placements = tensor.device_mesh, tensor.placements  # type: ignore[attr-defined]  # DTensor only
    place = mesh.get_coordinate()
    return place is not None and all(
        at == 0 for at, p in zip(place, placements, strict=True) if p.is_replicate()
    )


def largest_local(tensor: Tensor) -> int:
    """Elements of the largest part of a tensor that any rank holds: the same number on every rank."""
    shape = list(tensor.shape)
    if is_distributed(tensor):
        mesh, placements = tensor.device_mesh, tensor.placements  # type: ignore[attr-defined]  # DTensor only
        for dimension, placement in enumerate(placements):
            if placement.is_shard():
                shape[placement.dim] = -(-shape[placement.dim] // mesh.size(dimension))
    return math.prod(shape)


def local(tensor: Tensor) -> Tensor:
    """This rank's elements: detached, dense, real; shares memory unless the tensor is sparse.

    Duplicate indices of a sparse tensor are summed first: uncoalesced values are not the entries.
    """
    if type(tensor) not in _PLAIN and is_distributed(tensor):
        tensor = cast(Tensor, tensor.to_local())  # type: ignore[attr-defined]  # DTensor only
    tensor = tensor.detach()
    if tensor.layout is not torch.strided:
        sparse = tensor if tensor.layout is torch.sparse_coo else tensor.to_sparse_coo()  # type: ignore[no-untyped-call]  # torch's
        tensor = sparse.coalesce().values()
    return torch.view_as_real(tensor.resolve_conj()) if tensor.is_complex() else tensor


def dense(tensor: Tensor) -> Tensor:
    """The tensor itself, or a sparse one with its zeros."""
    return tensor if tensor.layout is torch.strided else tensor.detach().to_dense()


def flat(tensor: Tensor) -> Tensor:
    """All elements as one dimension, in memory order where the memory is dense (no copy), else in logical order.

    Memory order makes channels-last tensors free to read; it is the same at every step for one tensor, which is
    all that sums need. Use `logical` where two tensors are compared coordinate by coordinate.
    """
    if tensor.is_contiguous():
        return tensor.view(-1)
    if _is_dense(tensor):
        return torch.as_strided(tensor, (tensor.numel(),), (1,))
    return tensor.reshape(-1)


def _is_dense(tensor: Tensor) -> bool:
    """Whether the elements fill one block of memory, each once, in whatever order."""
    expected = 1
    for stride, size in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if size != 1:
            if stride != expected:
                return False
            expected *= size
    return True


def logical(tensor: Tensor) -> Tensor:
    """All elements as one dimension in the tensor's own (row-major) order; copies if memory has another order."""
    return tensor.reshape(-1)
