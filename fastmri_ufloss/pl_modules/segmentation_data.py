"""Batches for training a segmentation network, and their random changes."""

from functools import cached_property
from pathlib import Path

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader

from fastmri_ufloss.data.loading import EqualSizeBatches, ResumableLoader, ordered_batches
from fastmri_ufloss.data.segmentation import SegmentationSlices
from fastmri_ufloss.mri.intensity import image_scale
from fastmri_ufloss.pl_modules.data_module import loader_options, rank_and_world_size_of

__all__ = ["SegmentationDataModule", "augment", "draw"]

NUM_DRAWS = 5  # of an image: two flips, angle, zoom, gamma
MAX_ANGLE = torch.pi / 12
MAX_LOG_ZOOM = 0.15
MAX_LOG_GAMMA = 0.3


class SegmentationDataModule(pl.LightningDataModule):
    """Fully sampled slices with their segmentations, from folders named as fastMRI's.

    Training batches are those of `EqualSizeBatches`, the same for any number of processes, and can be resumed within
    an epoch. In validation the processes share the slices; some are repeated so that all have equally many, and
    `SegmentationModule` counts each once. Use it with ``Trainer(use_distributed_sampler=False)``.

    Args:
        data_path: folder of ``{challenge}_train`` and ``{challenge}_val``.
        challenge: ``"singlecoil"`` or ``"multicoil"``.
        num_classes: with the background; by default the highest class of the training split and one more.
        only_with_classes: train on slices that are not background alone.
        skip_missing: leave out volumes without a segmentation, which are an error otherwise.
        batch_size: slices in each process.
        num_workers: of the loaders.
        seed: of the shuffling.

    Raises:
        FileNotFoundError, ValueError: in `setup`, if a folder or segmentations are missing, see `SegmentationSlices`,
            there is a class above num_classes, no training slice has one of the classes, or no validation slice any.
    """

    def __init__(
        self,
        data_path: str | Path,
        challenge: str,
        *,
        num_classes: int | None = None,
        only_with_classes: bool = False,
        skip_missing: bool = False,
        batch_size: int = 8,
        num_workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if challenge not in ("singlecoil", "multicoil"):
            raise ValueError(f"challenge must be 'singlecoil' or 'multicoil', got {challenge!r}")
        self.data_path = Path(data_path)
        self.challenge = challenge
        self.only_with_classes = only_with_classes
        self.skip_missing = skip_missing
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.seed = seed
        self._num_classes = num_classes

    @cached_property
    def train_slices(self) -> SegmentationSlices:
        """The training split."""
        return SegmentationSlices(
            self.folder("train"), only_with_classes=self.only_with_classes, skip_missing=self.skip_missing
        )

    @cached_property
    def val_slices(self) -> SegmentationSlices:
        """The validation split."""
        return SegmentationSlices(self.folder("val"), skip_missing=self.skip_missing)

    @property
    def num_classes(self) -> int:
        """With the background."""
        return self.train_slices.num_classes if self._num_classes is None else self._num_classes

    def folder(self, split: str) -> Path:
        """The folder of a split: ``"train"`` or ``"val"``."""
        return self.data_path / f"{self.challenge}_{split}"

    def setup(self, stage: str | None = None) -> None:
        """Check that both splits have what training and validation need."""
        for split, slices in (("train", self.train_slices), ("val", self.val_slices)):
            if slices.num_classes < 2:
                raise ValueError(
                    f"{self.folder(split)} must have a class beside the background, got none in any slice"
                )
            if slices.num_classes > self.num_classes:
                raise ValueError(
                    f"num_classes must be above the highest class of {self.folder(split)}, which is "
                    f"{slices.num_classes - 1}, got {self.num_classes}"
                )
        absent = _absent_classes(self.train_slices, self.num_classes)
        if absent:
            raise ValueError(
                f"no slice of {self.folder('train')} has class {', '.join(map(str, absent))}: a network of "
                f"{self.num_classes} classes cannot learn it; number the classes without gaps, or check num_classes"
            )

    def train_dataloader(self) -> ResumableLoader:
        """Shuffled batches of `SegmentationSample`."""
        rank, world_size = rank_and_world_size_of(self)
        batches = EqualSizeBatches(
            self.train_slices.sizes,
            batch_size=self.batch_size,
            seed=self.seed,
            rank=rank,
            world_size=world_size,
        )
        return ResumableLoader(self.train_slices, batch_sampler=batches, **loader_options(self.num_workers))

    def val_dataloader(self) -> DataLoader:
        """This process's slices in their order."""
        rank, world_size = rank_and_world_size_of(self)
        count = len(self.val_slices)
        share = -(-count // world_size)
        first = rank * share
        indices = [index % count for index in range(first, first + share)]
        batches = ordered_batches(indices, self.val_slices.sizes, batch_size=self.batch_size)
        return DataLoader(self.val_slices, batch_sampler=batches, **loader_options(self.num_workers))


def _absent_classes(slices: SegmentationSlices, num_classes: int) -> list[int]:
    """Classes that no slice has; reads on until all have been found."""
    absent = set(range(1, num_classes))
    for index in range(len(slices)):
        if not absent:
            break
        absent -= set(slices[index].segmentation.unique().tolist())
    return sorted(absent)


def draw(count: int, *, rank: int = 0, world_size: int = 1) -> Tensor:
    """This process's share, (count, 5), of the random numbers of the batches of all processes, for `augment`."""
    return torch.rand(world_size * count, NUM_DRAWS)[rank * count : (rank + 1) * count]


def augment(images: Tensor, segmentation: Tensor, draws: Tensor) -> tuple[Tensor, Tensor]:
    """Images and segmentations, flipped, turned by up to 15 degrees and zoomed alike; images with another gamma.

        x'(p) = (x(A p) / scale)^gamma,    s'(p) = s(A p)

    where scale is `image_scale`, gamma 0.74 .. 1.35, and the zoom 0.86 .. 1.16. Images are interpolated linearly, of
    segmentations the nearest pixel is taken; outside of the image both are 0.

    Args:
        images: magnitudes (batch, 1, rows, cols), of any unit.
        segmentation: class numbers (batch, rows, cols).
        draws: uniform in [0, 1), (batch, 5): for two flips, below 0.5, angle, zoom and gamma, which 0.5 leaves as is.

    Returns:
        Images in units of their scale, and segmentations, in the shapes and dtypes of the arguments.
    """
    draws = draws.to(images)
    flips = torch.where(draws[:, :2] < 0.5, -1.0, 1.0).to(images)
    angle, log_zoom, log_gamma = (
        (2 * draws[:, 2 + i] - 1) * limit for i, limit in enumerate((MAX_ANGLE, MAX_LOG_ZOOM, MAX_LOG_GAMMA))
    )
    rows, cols = images.shape[-2:]
    cos, sin = angle.cos() * log_zoom.exp(), angle.sin() * log_zoom.exp()
    # grid_sample measures both axes from -1 to 1, whatever their lengths
    x_row = torch.stack([cos * flips[:, 0], -sin * flips[:, 1] * rows / cols], dim=1)
    y_row = torch.stack([sin * flips[:, 0] * cols / rows, cos * flips[:, 1]], dim=1)
    theta = F.pad(torch.stack([x_row, y_row], dim=1), (0, 1))  # no shift
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    scale = image_scale(images).to(images).reshape(-1, 1, 1, 1)
    moved = F.grid_sample(images / scale, grid, mode="bilinear", align_corners=False)
    classes = F.grid_sample(segmentation.to(images).unsqueeze(1), grid, mode="nearest", align_corners=False)
    gamma = log_gamma.exp().reshape(-1, 1, 1, 1)
    return moved.clamp(min=0) ** gamma, classes.squeeze(1).to(segmentation.dtype)
