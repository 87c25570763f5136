"""Pretraining of the feature network on the patches of a data set."""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import h5py
import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

from fastmri_ufloss.data.loading import EqualSizeBatches, ResumableLoader, ordered_batches
from fastmri_ufloss.data.patches import PatchDataset, PatchSettings, patch_file_name, write_volume_patches
from fastmri_ufloss.data.slices import IndexedSliceDataset
from fastmri_ufloss.data.transforms import collate
from fastmri_ufloss.pl_modules.data_module import MriDataModule, rank_and_world_size_of
from fastmri_ufloss.pl_modules.mri_module import with_maps

__all__ = ["PatchDataModule"]

MAX_HELD_OUT = 8192  # patches of the validation: retrieval compares each with all


class PatchDataModule(pl.LightningDataModule):
    """Patches of the references that a `MriDataModule` gives, for `FeatureModule`.

    The patches of a volume are cut once and kept on disk; several processes share the volumes. The numbers of
    the patches follow the names of the volumes and the slices, so they do not depend on who cut them.

    Args:
        source: its training and validation split; for ``"combined"`` with transforms that make a `MoDLSample`.
        patch_dir: folder for the patches.
        patch_size: rows and columns of a patch.
        patches_per_slice: number of patches, at random places.
        images: ``"combined"`` for the complex coil-combined reference (2 channels), ``"rss"`` for the file's
            root-sum-of-squares or single-coil image (1 channel).
        batch_size, num_workers: of the loaders.
        seed: of the places and of the shuffling.
    """

    def __init__(
        self,
        source: MriDataModule,
        *,
        patch_dir: str | Path,
        patch_size: int = 60,
        patches_per_slice: int = 80,
        images: Literal["combined", "rss"] = "combined",
        batch_size: int = 16,
        num_workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if images not in ("combined", "rss"):
            raise ValueError(f"images must be 'combined' or 'rss', got {images!r}")
        self.source = source
        self.patch_dir = Path(patch_dir)
        self.patch_size = patch_size
        self.patches_per_slice = patches_per_slice
        self.images = images
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.seed = seed
        self._settings = PatchSettings(patch_size, patches_per_slice, seed)

    @property
    def in_chans(self) -> int:
        """Channels of the patches."""
        return 2 if self.images == "combined" else 1

    def num_patches(self) -> int:
        """Number of training patches, without cutting them."""
        self.prepare_data()
        return len(self.source.dataset("train")) * self.patches_per_slice

    def prepare_data(self) -> None:
        for split in ("train", "val"):
            self.source.build_index(split)

    def setup(self, stage: str) -> None:
        self._train = self._cut("train")
        self._val = self._cut("val")
        if self.trainer is not None:
            self.trainer.strategy.barrier("patches")
        self.train_patches, self.val_patches = PatchDataset(self._train), PatchDataset(self._val)

    def train_dataloader(self) -> DataLoader:
        rank, world_size = rank_and_world_size_of(self)
        batches = EqualSizeBatches(
            [0] * len(self.train_patches),
            batch_size=self.batch_size,
            seed=self.seed,
            rank=rank,
            world_size=world_size,
        )
        return ResumableLoader(self.train_patches, batch_sampler=batches, num_workers=self.num_workers)

    def val_dataloader(self) -> DataLoader:
        rank, world_size = rank_and_world_size_of(self)
        step = -(-len(self.val_patches) // MAX_HELD_OUT)
        held_out = range(0, len(self.val_patches), step)
        mine = held_out[rank::world_size]
        # equal numbers for all processes; retrieval counts a patch once
        indices = [*mine, *[0] * (-(-len(held_out) // world_size) - len(mine))]
        batches = ordered_batches(indices, [0] * len(self.val_patches), batch_size=max(self.batch_size, 64))
        return DataLoader(self.val_patches, batch_sampler=batches, num_workers=self.num_workers)

    def _cut(self, split: str) -> list[Path]:
        """The patch files of a split; this process's share of the missing ones is made."""
        dataset = self.source.dataset(split)
        volumes: dict[Path, list[int]] = {}
        for index, sample in enumerate(dataset.raw_samples):
            volumes.setdefault(sample.fname, []).append(index)
        volumes = dict(sorted(volumes.items()))
        self.patch_dir.mkdir(parents=True, exist_ok=True)
        files = [self.patch_dir / self._file_name(volume, volumes[volume], dataset) for volume in volumes]
        missing = [(volume, file) for volume, file in zip(volumes, files, strict=True) if not file.is_file()]
        rank, world_size = rank_and_world_size_of(self)
        mine = missing[rank::world_size]
        for volume, file in tqdm(mine, desc=f"Patches of {split}", unit="volume", disable=not mine):
            references = self._references(dataset, volumes[volume])
            write_volume_patches(file, references, self._settings, volume_name=volume.name)
        return files

    def _file_name(self, volume: Path, indices: list[int], dataset: IndexedSliceDataset) -> str:
        slices = [dataset.raw_samples[index].slice_ind for index in indices]
        source = f"{self.images} {slices}"
        if self.images == "combined":
            transform = self.source.train_transform
            maps = "device" if transform.sens_maps is None else transform.sens_maps.key(volume)
            masks = transform.mask_func
            center = [getattr(masks, name, None) for name in ("center_fractions", "center_size")]
            source = f"{self.images} {maps} {type(masks).__name__} {center} {slices}"
        return patch_file_name(volume, self._settings, in_chans=self.in_chans, source=source)

    def _references(self, dataset: IndexedSliceDataset, indices: list[int]) -> Iterator[Tensor]:
        device = torch.device("cpu") if self.trainer is None else self.trainer.strategy.root_device
        if self.images == "rss":
            yield from _file_images(dataset, indices)
            return
        for index in indices:
            batch = with_maps(self.transfer_batch_to_device(collate([dataset[index]]), device, 0))
            if batch.reference is None:
                raise ValueError(f"{batch.fname[0]} is undersampled: patches need full k-space")
            yield batch.reference[0].cpu()


def _file_images(dataset: IndexedSliceDataset, indices: list[int]) -> Iterator[Tensor]:
    """The root-sum-of-squares or single-coil image of each slice, without reading its k-space."""
    for index in indices:
        sample = dataset.raw_samples[index]
        with h5py.File(sample.fname, "r") as volume:
            if dataset.recons_key not in volume:
                raise ValueError(f"{sample.fname} has no {dataset.recons_key} to take patches from")
            yield torch.from_numpy(volume[dataset.recons_key][sample.slice_ind]).float()
