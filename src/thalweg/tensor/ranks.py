"""Which rank this process is, asked of torch.distributed without starting anything."""

from typing import Any

import torch.distributed as dist
from torch import nn


def rank_and_world() -> tuple[int, int]:
    """This process's rank and the number of ranks; (0, 1) where no process group is set up."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


def agreed(question: str, mine: str) -> str:
    """The same answer on every rank, without a collective and without waiting: that of the rank that asks first.

    The answer stands in the store through which the ranks met. A question that is asked again is a new question.

    Args:
        question: the same text on all ranks that are to agree.
        mine: this rank's proposal, which is also the answer where no process group is set up.
    """
    if rank_and_world()[1] == 1:
        return mine
    store = dist.distributed_c10d._get_default_store()
    times = store.add(f"thalweg/asked/{dist.get_rank()}/{question}", 1)
    answer = store.compare_set(f"thalweg/answer/{times}/{question}", "", mine)
    return str(answer.decode())


def data_ranks(model: nn.Module) -> int:
    """Over how many ranks the batch is split, and gradients are means: DDP's and FSDP2's; 1 for a plain model."""
    model = model._modules.get("_orig_mod") or model
    if isinstance(model, nn.parallel.DistributedDataParallel):
        return int(model.process_group.size())
    for module in model.modules():
        state: Any = getattr(module, "_get_fsdp_state", lambda: None)()
        if state is not None:
            one = (
                [] if hasattr(state, "_fsdp_param_groups") else [state._fsdp_param_group]
            )  # before torch 2.10
            for group in filter(None, getattr(state, "_fsdp_param_groups", one)):
                return int(group.mesh_info.mesh.size())
    return 1
