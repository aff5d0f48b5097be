"""Which rank this process is, asked of torch.distributed without starting anything."""

import torch.distributed as dist


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
