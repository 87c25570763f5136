"""Batches of equal sizes, the same for any number of processes, and a loader that resumes within an epoch."""

from collections.abc import Hashable, Iterator, Sequence
from typing import Any

import torch
from torch.utils.data import DataLoader, Sampler

from fastmri_ufloss.checks import check

__all__ = ["EqualSizeBatches", "ResumableLoader", "equal_part", "ordered_batches"]


class EqualSizeBatches(Sampler[list[tuple[int, int]]]):
    """Shuffled batches of (epoch, index) for training; all samples of a batch have the same size.

    The global batches depend on seed and epoch alone, and each of ``world_size`` processes takes its part of every
    global batch; several processes fill a last batch that is not full from its beginning. ``sizes`` has one entry a
    sample, of any kind.
    """

    def __init__(
        self, sizes: Sequence[Hashable], *, batch_size: int, seed: int = 0, rank: int = 0, world_size: int = 1
    ) -> None:
        check(batch_size >= 1, "batch_size", "at least 1", batch_size)
        self.batch_size = batch_size
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self.epoch = 0
        self.skip = 0  # batches to leave out at the start of the next pass
        groups: dict[Hashable, list[int]] = {}
        for index, size in enumerate(sizes):
            groups.setdefault(size, []).append(index)
        self._groups = list(groups.values())

    @property
    def sampler(self) -> "EqualSizeBatches":
        """The object itself: where Lightning looks for ``set_epoch``."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """The epoch of the next pass."""
        self.epoch = epoch

    def __len__(self) -> int:
        step = self.batch_size * self.world_size
        return sum(-(-len(group) // step) for group in self._groups)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        step = self.batch_size * self.world_size
        batches = []
        for group in self._groups:
            order = [group[i] for i in torch.randperm(len(group), generator=generator).tolist()]
            batches += [order[start : start + step] for start in range(0, len(order), step)]
        order_of_batches = torch.randperm(len(batches), generator=generator).tolist()
        first, self.skip = self.skip, 0
        for number in order_of_batches[first:]:
            part = equal_part(batches[number], rank=self.rank, world_size=self.world_size)
            yield [(self.epoch, index) for index in part]


def equal_part(indices: Sequence[int], *, rank: int, world_size: int) -> list[int]:
    """The indices of a process; the first ones come again at the end so that all processes have equally many."""
    count = -(-len(indices) // world_size)
    return [indices[number % len(indices)] for number in range(rank * count, (rank + 1) * count)]


def ordered_batches(indices: Sequence[int], sizes: Sequence[Hashable], *, batch_size: int) -> list[list[int]]:
    """Batches of ``indices`` in their order, cut where the size of the samples changes, for validation and test."""
    check(batch_size >= 1, "batch_size", "at least 1", batch_size)
    batches: list[list[int]] = []
    for index in indices:
        last = batches[-1] if batches else []
        if last and len(last) < batch_size and sizes[last[0]] == sizes[index]:
            last.append(index)
        else:
            batches.append([index])
    return batches


class ResumableLoader(DataLoader):
    """A ``DataLoader`` over `EqualSizeBatches` that Lightning can resume within an epoch."""

    used_batches = 0  # of this epoch, those before a resume included
    _start = 0

    def state_dict(self) -> dict[str, Any]:
        """The number of batches of this epoch that have been used, for Lightning's checkpoints."""
        return {"used_batches": self.used_batches}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Leave out the used batches in the next pass; after a full epoch, none."""
        self._start = int(state["used_batches"]) % max(len(self), 1)

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        # a generator: it starts at the first batch, when the epoch has been set
        self.batch_sampler.skip = self.used_batches = self._start  # type: ignore[union-attr]
        self._start = 0
        for batch in super().__iter__():
            self.used_batches += 1
            yield batch
