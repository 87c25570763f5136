"""fastMRI's data module on the safe index, with batches that do not depend on workers or processes."""

from collections.abc import Callable, Collection, Hashable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import fastmri.pl_modules
import pytorch_lightning as pl
import torch
from fastmri.data import VolumeSampler
from fastmri.data.subsample import MaskFunc
from torch.utils.data import DataLoader, Dataset

from fastmri_ufloss.data.index import MetadataIndex, list_volumes, read_split
from fastmri_ufloss.data.loading import EqualSizeBatches, ResumableLoader, equal_part, ordered_batches
from fastmri_ufloss.data.masks import min_center_shape
from fastmri_ufloss.data.slices import IndexedSliceDataset, scale_center
from fastmri_ufloss.data.transforms import collate

__all__ = ["DataModule", "MriDataModule"]


class DataModule(pl.LightningDataModule):
    """Loaders whose batches are the same for any number of workers and processes.

    For ``Trainer(use_distributed_sampler=False)``.
    """

    batch_size: int
    num_workers: int
    seed: int

    def rank_and_world_size(self) -> tuple[int, int]:
        """The number of the process and the number of processes of the trainer; (0, 1) without a trainer."""
        return (0, 1) if self.trainer is None else (self.trainer.global_rank, self.trainer.world_size)

    def equal_part(self, indices: Sequence[int]) -> list[int]:
        """The indices of this process, see `equal_part`."""
        rank, world_size = self.rank_and_world_size()
        return equal_part(indices, rank=rank, world_size=world_size)

    def shuffled_loader(self, dataset: Dataset, sizes: Sequence[Hashable]) -> ResumableLoader:
        """Batches of `EqualSizeBatches`, which can be resumed within an epoch."""
        rank, world_size = self.rank_and_world_size()
        batches = EqualSizeBatches(
            sizes, batch_size=self.batch_size, seed=self.seed, rank=rank, world_size=world_size
        )
        return ResumableLoader(dataset, batch_sampler=batches, **self._loader_options())

    def ordered_loader(
        self, dataset: Dataset, sizes: Sequence[Hashable], indices: Sequence[int], *, batch_size: int | None = None
    ) -> DataLoader:
        """Batches of `ordered_batches`."""
        batches = ordered_batches(indices, sizes, batch_size=batch_size or self.batch_size)
        return DataLoader(dataset, batch_sampler=batches, **self._loader_options())

    def _loader_options(self) -> dict[str, Any]:
        return {
            "collate_fn": collate,
            "num_workers": self.num_workers,
            "persistent_workers": self.num_workers > 0,
            "pin_memory": torch.cuda.is_available(),
        }


class MriDataModule(DataModule, fastmri.pl_modules.FastMriDataModule):
    """``fastmri.pl_modules.FastMriDataModule`` with a `MetadataIndex` in place of the pickled cache.

    The index is made once by one process of each node, before training. In validation and test a process gets whole
    volumes.

    Args:
        data_path: folder of ``{challenge}_train``, ``{challenge}_val`` and ``{challenge}_test``.
        challenge: ``"singlecoil"`` or ``"multicoil"``.
        train_transform, val_transform, test_transform: of the slices.
        cache_dir: for the index.
        mask_func: of the transforms, to know which center is always sampled.
        seed: of shuffling and sub-sampling.
        val_split: divides the validation folder into the volumes of the validation and those of the test, where no
            test_path is given: see `read_split`.
        **kwargs: of fastMRI's class.
    """

    def __init__(
        self,
        data_path: str | Path,
        challenge: str,
        train_transform: Callable[..., Any],
        val_transform: Callable[..., Any],
        test_transform: Callable[..., Any],
        *,
        cache_dir: str | Path,
        mask_func: MaskFunc | None = None,
        seed: int = 0,
        val_split: str | Path | None = None,
        **kwargs: Any,
    ) -> None:
        transforms = (train_transform, val_transform, test_transform)
        super().__init__(Path(data_path), challenge, *transforms, use_dataset_cache_file=False, **kwargs)
        self.cache_dir = Path(cache_dir)
        self.seed = seed
        self.val_split = None if val_split is None else read_split(val_split)
        self.mask_center = None if mask_func is None else partial(min_center_shape, mask_func)

    @property
    def num_virtual_coils(self) -> int | None:
        """The number of the transforms."""
        number: int | None = getattr(self.train_transform, "num_virtual_coils", None)
        return number

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint says of the data that its network was trained on."""
        return {} if self.num_virtual_coils is None else {"num_virtual_coils": self.num_virtual_coils}

    def folder(self, split: str) -> Path:
        """The folder of a split: ``"train"``, ``"val"`` or ``"test"``."""
        if split == "test" and self.val_split is not None and self.test_path is None:
            split = "val"
        if split == "test":
            return Path(self.test_path or self.data_path / f"{self.challenge}_{self.test_split}")
        return self.data_path / f"{self.challenge}_{split}"

    def names(self, split: str) -> Collection[str] | None:
        """The volumes of a split, where it is a part of its folder."""
        divided = split == "val" or (split == "test" and self.test_path is None)
        return self.val_split[split] if self.val_split is not None and divided else None

    def build_index(self, split: str) -> None:
        """Make what is missing in the index of a split, with a progress bar."""
        index = self._index(split)
        index.build(
            list_volumes(self.folder(split), self.names(split)),
            lambda meta: scale_center(meta, self.mask_center),
            num_virtual_coils=self.num_virtual_coils,
        )

    def dataset(self, split: str, *, whole: bool = False) -> IndexedSliceDataset:
        """The slices of a split, through its transform; with ``whole`` not in bands of rows, see ``train_rows``."""
        transform, rate, volume_rate = {
            "train": (self.train_transform, self.sample_rate, self.volume_sample_rate),
            "val": (self.val_transform, self.val_sample_rate, self.val_volume_sample_rate),
            "test": (self.test_transform, self.test_sample_rate, self.test_volume_sample_rate),
        }[split]
        if whole and getattr(transform, "train_rows", None) is not None:
            transform = replace(transform, train_rows=None)
        return IndexedSliceDataset(
            self.folder(split),
            self.challenge,
            index=self._index(split),
            mask_center=self.mask_center,
            transform=transform,
            sample_rate=rate,
            volume_sample_rate=volume_rate,
            seed=self.seed,
            skip_empty=split != "test",
            names=self.names(split),
        )

    def prepare_data(self) -> None:
        testing = self.trainer is not None and self.trainer.testing
        for split in ("test",) if testing else ("train", "val"):
            self.build_index(split)

    def train_dataloader(self) -> ResumableLoader:
        dataset = self.dataset("train")
        if self.combine_train_val:
            dataset.raw_samples = dataset.raw_samples + self.dataset("val").raw_samples
        return self.shuffled_loader(dataset, dataset.batch_keys)

    def val_dataloader(self) -> DataLoader:
        return self._volume_loader("val")

    def test_dataloader(self) -> DataLoader:
        return self._volume_loader("test")

    def _volume_loader(self, split: str) -> DataLoader:
        """The slices of this process's volumes."""
        dataset = self.dataset(split)
        rank, world_size = self.rank_and_world_size()
        indices = list(range(len(dataset)))
        if world_size > 1:
            num_volumes = len({sample.fname for sample in dataset.raw_samples})
            if num_volumes < world_size:
                raise ValueError(
                    f"{self.folder(split)} has {num_volumes} volumes for {world_size} processes, which get whole "
                    "volumes: use fewer devices"
                )
            indices = list(VolumeSampler(dataset, num_replicas=world_size, rank=rank, shuffle=False))
            if split == "test":
                # the sampler repeats slices to make the processes' numbers equal, which a test need not
                indices = list(dict.fromkeys(indices))
        return self.ordered_loader(dataset, dataset.batch_keys, indices)

    def _index(self, split: str) -> MetadataIndex:
        return MetadataIndex.for_folder(self.folder(split), self.cache_dir, challenge=self.challenge)
