"""fastMRI's data module on the safe index, with batches that do not depend on workers or processes."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import fastmri.pl_modules
import pytorch_lightning as pl
import torch
from fastmri.data import VolumeSampler
from fastmri.data.subsample import MaskFunc

from fastmri_ufloss.data.index import MetadataIndex, list_volumes
from fastmri_ufloss.data.loading import EqualSizeBatches, ResumableLoader, ordered_batches
from fastmri_ufloss.data.masks import min_center_shape
from fastmri_ufloss.data.slices import IndexedSliceDataset, scale_center
from fastmri_ufloss.data.transforms import collate

__all__ = ["MriDataModule", "loader_options", "rank_and_world_size_of"]


class MriDataModule(fastmri.pl_modules.FastMriDataModule):
    """``fastmri.pl_modules.FastMriDataModule`` with a `MetadataIndex` in place of the pickled cache.

    The index is made once by one process of each node, before training. Training batches are those of
    `EqualSizeBatches`; they can be resumed within an epoch. In validation and test a process gets whole
    volumes. Use it with ``Trainer(use_distributed_sampler=False)``.

    Args:
        data_path: folder of ``{challenge}_train``, ``{challenge}_val`` and ``{challenge}_test``.
        challenge: ``"singlecoil"`` or ``"multicoil"``.
        train_transform, val_transform, test_transform: of the slices.
        cache_dir: for the index.
        mask_func: of the transforms, to know which center is always sampled.
        seed: of shuffling and sub-sampling.
        combine_train_val: train on both.
        test_split: folder ``{challenge}_{test_split}`` for the test.
        test_path: folder for the test, in place of the split's.
        sample_rate, val_sample_rate, test_sample_rate: fraction of the slices.
        volume_sample_rate, val_volume_sample_rate, test_volume_sample_rate: fraction of the volumes.
        batch_size, num_workers: of the loaders.
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
        combine_train_val: bool = False,
        test_split: str = "test",
        test_path: str | Path | None = None,
        sample_rate: float | None = None,
        val_sample_rate: float | None = None,
        test_sample_rate: float | None = None,
        volume_sample_rate: float | None = None,
        val_volume_sample_rate: float | None = None,
        test_volume_sample_rate: float | None = None,
        batch_size: int = 1,
        num_workers: int = 4,
    ) -> None:
        super().__init__(
            data_path=Path(data_path),
            challenge=challenge,
            train_transform=train_transform,
            val_transform=val_transform,
            test_transform=test_transform,
            combine_train_val=combine_train_val,
            test_split=test_split,
            test_path=None if test_path is None else Path(test_path),
            sample_rate=sample_rate,
            val_sample_rate=val_sample_rate,
            test_sample_rate=test_sample_rate,
            volume_sample_rate=volume_sample_rate,
            val_volume_sample_rate=val_volume_sample_rate,
            test_volume_sample_rate=test_volume_sample_rate,
            use_dataset_cache_file=False,
            batch_size=batch_size,
            num_workers=num_workers,
        )
        self.cache_dir = Path(cache_dir)
        self.seed = seed
        self.mask_center = None if mask_func is None else partial(min_center_shape, mask_func)

    def folder(self, split: str) -> Path:
        """The folder of a split: ``"train"``, ``"val"`` or ``"test"``."""
        if split == "test":
            return self.test_path or self.data_path / f"{self.challenge}_{self.test_split}"
        return self.data_path / f"{self.challenge}_{split}"

    def build_index(self, split: str) -> None:
        """Make what is missing in the index of a split, with a progress bar."""
        index = self._index(split)
        index.build(list_volumes(self.folder(split)), lambda meta: scale_center(meta, self.mask_center))

    def dataset(self, split: str) -> IndexedSliceDataset:
        """The slices of a split, through its transform."""
        transform, rate, volume_rate = {
            "train": (self.train_transform, self.sample_rate, self.volume_sample_rate),
            "val": (self.val_transform, self.val_sample_rate, self.val_volume_sample_rate),
            "test": (self.test_transform, self.test_sample_rate, self.test_volume_sample_rate),
        }[split]
        dataset = IndexedSliceDataset(
            self.folder(split),
            self.challenge,
            index=self._index(split),
            mask_center=self.mask_center,
            transform=transform,
            sample_rate=rate,
            volume_sample_rate=volume_rate,
            seed=self.seed,
            skip_empty=split != "test",
        )
        return dataset

    def prepare_data(self) -> None:
        testing = self.trainer is not None and self.trainer.testing
        for split in ("test",) if testing else ("train", "val"):
            self.build_index(split)

    def train_dataloader(self) -> ResumableLoader:
        dataset = self.dataset("train")
        if self.combine_train_val:
            val = self.dataset("val")
            dataset.raw_samples = dataset.raw_samples + val.raw_samples
        rank, world_size = rank_and_world_size_of(self)
        batches = EqualSizeBatches(
            dataset.batch_keys,
            batch_size=self.batch_size,
            seed=self.seed,
            rank=rank,
            world_size=world_size,
        )
        return ResumableLoader(dataset, batch_sampler=batches, **loader_options(self.num_workers))

    def val_dataloader(self) -> torch.utils.data.DataLoader:
        return self._ordered_loader("val")

    def test_dataloader(self) -> torch.utils.data.DataLoader:
        return self._ordered_loader("test")

    def _ordered_loader(self, split: str) -> torch.utils.data.DataLoader:
        dataset = self.dataset(split)
        rank, world_size = rank_and_world_size_of(self)
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
        batches = ordered_batches(indices, dataset.batch_keys, batch_size=self.batch_size)
        return torch.utils.data.DataLoader(dataset, batch_sampler=batches, **loader_options(self.num_workers))

    def _index(self, split: str) -> MetadataIndex:
        return MetadataIndex.for_folder(self.folder(split), self.cache_dir, challenge=self.challenge)


def loader_options(num_workers: int) -> dict[str, Any]:
    """How every loader of this package collates and is run."""
    return {
        "collate_fn": collate,
        "num_workers": num_workers,
        "persistent_workers": num_workers > 0,
        "pin_memory": torch.cuda.is_available(),
    }


def rank_and_world_size_of(data: pl.LightningDataModule) -> tuple[int, int]:
    """Number of the process and number of processes of a data module's trainer; (0, 1) without one."""
    return (0, 1) if data.trainer is None else (data.trainer.global_rank, data.trainer.world_size)
