"""Batches of equal sizes, the same for any number of processes, and a loader that resumes within an epoch."""

from collections.abc import Hashable, Iterator, Sequence
from typing import Any

import torch
from torch.utils.data import DataLoader, Sampler

__all__ = ["EqualSizeBatches", "OrderedBatches", "ResumableLoader"]


class EqualSizeBatches(Sampler[list[tuple[int, int]]]):
    """Shuffled batches of (epoch, index) for training; all samples of a batch have the same size.

    The global batches depend on seed and epoch alone. Each of ``world_size`` processes takes its part of every
    global batch, so 2 processes with batches of b see what 1 process sees with batches of 2b. A last batch that
    is not full is filled up from its beginning where there are several processes.

    Args:
        sizes: the size of each sample, anything that can be compared.
        batch_size: samples of a batch in each process.
        seed: of the shuffling.
        rank, world_size: this process and their number.
    """

    def __init__(
        self, sizes: Sequence[Hashable], *, batch_size: int, seed: int = 0, rank: int = 0, world_size: int = 1
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
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
        """Itself: where Lightning looks for ``set_epoch``."""
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
            yield [(self.epoch, index) for index in self._part(batches[number])]

    def _part(self, batch: list[int]) -> list[int]:
        if self.world_size == 1:
            return batch
        share = -(-len(batch) // self.world_size)
        filled = [batch[i % len(batch)] for i in range(share * self.world_size)]
        return filled[self.rank * share : (self.rank + 1) * share]


class OrderedBatches(Sampler[list[int]]):
    """Batches in the given order, cut where the size changes, for validation and test.

    Args:
        indices: samples of this process in their order.
        sizes: the size of each sample of the data set.
        batch_size: samples of a batch.
    """

    def __init__(self, indices: Sequence[int], sizes: Sequence[Hashable], *, batch_size: int) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        self._batches: list[list[int]] = []
        for index in indices:
            last = self._batches[-1] if self._batches else []
            if last and len(last) < batch_size and sizes[last[0]] == sizes[index]:
                last.append(index)
            else:
                self._batches.append([index])

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self._batches)


class ResumableLoader(DataLoader):
    """A ``DataLoader`` over `EqualSizeBatches` that Lightning can resume within an epoch.

    Lightning stores ``state_dict()`` in its checkpoints. After a resume the batches that had been used are left
    out without being read.
    """

    used_batches = 0
    """Batches of this epoch that have been used, those before a resume included."""

    def state_dict(self) -> dict[str, Any]:
        """The number of batches of this epoch that have been used."""
        return {"used_batches": self.used_batches}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Leave out the used batches in the next pass; after a full epoch, none."""
        self._start = int(state["used_batches"]) % max(len(self), 1)

    _start = 0

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        # a generator: it starts at the first batch, when the epoch has been set
        self.batch_sampler.skip = self.used_batches = self._start  # type: ignore[union-attr]
        self._start = 0
        for batch in super().__iter__():
            self.used_batches += 1
            yield batch
