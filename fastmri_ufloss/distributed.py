"""What processes of one training exchange; a single process exchanges nothing."""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

__all__ = ["gather_objects", "gather_rows", "mean_over_processes", "rank_and_world_size"]


def rank_and_world_size() -> tuple[int, int]:
    """The number of this process and the number of processes."""
    is_distributed = dist.is_available() and dist.is_initialized()
    return (dist.get_rank(), dist.get_world_size()) if is_distributed else (0, 1)


def gather_rows(rows: Tensor) -> Tensor:
    """Rows of all processes, concatenated in the order of the ranks; every process has equally many."""
    _, world_size = rank_and_world_size()
    if world_size == 1:
        return rows
    gathered = [torch.empty_like(rows) for _ in range(world_size)]
    dist.all_gather(gathered, rows.contiguous())
    return torch.cat(gathered)


def gather_objects(value: Any) -> list[Any]:
    """Plain values of all processes in the order of the ranks."""
    gathered = [value] * rank_and_world_size()[1]
    if len(gathered) > 1:
        dist.all_gather_object(gathered, value)
    return gathered


def mean_over_processes(values: Tensor) -> Tensor:
    """The mean of a tensor over all processes."""
    return gather_rows(values[None]).mean(dim=0)
