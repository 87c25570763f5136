"""Training of a segmentation network, which tells by its Dice how well structures can be seen: data and module."""

from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader

from fastmri_ufloss.checks import check, require
from fastmri_ufloss.data.loading import ResumableLoader
from fastmri_ufloss.data.segmentation import SegmentationSlices
from fastmri_ufloss.distributed import gather_objects, rank_and_world_size
from fastmri_ufloss.metrics.semantic_interpretability import dice_of_classes
from fastmri_ufloss.models.segmentation import SegmentationNet
from fastmri_ufloss.mri.intensity import image_scale
from fastmri_ufloss.pl_modules.base_module import BaseModule
from fastmri_ufloss.pl_modules.data_module import DataModule

__all__ = ["SegmentationDataModule", "SegmentationLoss", "SegmentationModule", "augment"]

SegmentationLoss = Literal["cross_entropy", "dice_ce"]

NUM_DRAWS = 5  # of an image: two flips, angle, zoom, gamma
MAX_ANGLE = torch.pi / 12
MAX_LOG_ZOOM = 0.15
MAX_LOG_GAMMA = 0.3


class SegmentationDataModule(DataModule):
    """Fully sampled slices with their segmentations, from folders named as fastMRI's.

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
        FileNotFoundError, ValueError: in `setup`, see `SegmentationSlices`; also for a class above num_classes, or a
            class that no training slice has.
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
        check(challenge in ("singlecoil", "multicoil"), "challenge", "'singlecoil' or 'multicoil'", repr(challenge))
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
        only = self.only_with_classes
        return SegmentationSlices(self.folder("train"), only_with_classes=only, skip_missing=self.skip_missing)

    @cached_property
    def val_slices(self) -> SegmentationSlices:
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
            folder, highest = self.folder(split), slices.num_classes - 1
            require(highest > 0, f"{folder} must have a class beside the background", "none in any slice")
            expected = f"above the highest class of {folder}, which is {highest}"
            check(self.num_classes > highest, "num_classes", expected, self.num_classes)
        absent, index = set(range(1, self.num_classes)), 0
        while absent and index < len(self.train_slices):  # reads on until all have been found
            absent -= set(self.train_slices[index].segmentation.unique().tolist())
            index += 1
        if absent:
            classes = ", ".join(map(str, sorted(absent)))
            advice = f"a network of {self.num_classes} classes cannot learn that; number classes without gaps"
            raise ValueError(f"no slice of {self.folder('train')} has class {classes}: {advice}")

    def train_dataloader(self) -> ResumableLoader:
        return self.shuffled_loader(self.train_slices, self.train_slices.sizes)

    def val_dataloader(self) -> DataLoader:
        indices = self.equal_part(range(len(self.val_slices)))
        return self.ordered_loader(self.val_slices, self.val_slices.sizes, indices)


def augment(images: Tensor, segmentation: Tensor, draws: Tensor) -> tuple[Tensor, Tensor]:
    """Images and segmentations, flipped, turned by up to 15 degrees and zoomed alike; images with another gamma.

        x'(p) = (x(A p) / scale)^gamma,    s'(p) = s(A p)

    where scale is `image_scale`, gamma 0.74 .. 1.35, and the zoom 0.86 .. 1.16; outside of the image both are 0.
    Images are magnitudes (batch, 1, rows, cols), segmentations class numbers (batch, rows, cols), and the draws,
    (batch, 5), uniform in [0, 1): for two flips, below 0.5, angle, zoom and gamma, which 0.5 leaves as is.
    """
    draws = draws.to(images, non_blocking=True)
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


class SegmentationModule(BaseModule):
    """Trains a `SegmentationNet` on fully sampled images, batches of `SegmentationSample`.

    Validation logs the Dice of each class but the background, ``val_dice/class_N``, over the images that have the
    class; their mean, ``val_dice``; and ``val_loss``. Several processes, with the random numbers of `SeededSteps`,
    give what one gives with the union of their batches.

    Args:
        num_classes: with the background.
        chans: of the U-Net's first level, doubled at each further one.
        num_levels: of the U-Net.
        num_res_units: convolutions in the residual unit of each level; 0 for a single convolution instead.
        loss: ``"cross_entropy"``, or ``"dice_ce"`` for the sum of cross entropy and the soft Dice loss of each image
            without its background, for small structures.
        lr: Adam's learning rate.
        augment: flip, turn, zoom and brighten training images at random, see `augment`.

    Raises:
        ImportError: without MONAI.
        ValueError: if an argument is not as above; in training, if a loss is not finite or a class unknown.

    Seitzer et al., "Adversarial and perceptual refinement for compressed sensing MRI reconstruction", MICCAI 2018.
    """

    prefix = "segmentation_net."

    def __init__(
        self,
        *,
        num_classes: int,
        chans: int = 32,
        num_levels: int = 5,
        num_res_units: int = 0,
        loss: SegmentationLoss = "cross_entropy",
        lr: float = 2e-4,
        augment: bool = True,
    ) -> None:
        super().__init__()
        kinds = get_args(SegmentationLoss)
        check(loss in kinds, "loss", f"one of {', '.join(kinds)}", repr(loss))
        check(lr > 0, "lr", "positive", lr)
        self.save_hyperparameters()
        self.segmentation_net = SegmentationNet(
            num_classes, chans=chans, num_levels=num_levels, num_res_units=num_res_units
        )
        self.dice_ce: nn.Module | None = None
        if loss == "dice_ce":
            from monai.losses import DiceCELoss  # with the network's MONAI

            # of each image by itself: the mean does not depend on how a batch is divided
            self.dice_ce = DiceCELoss(include_background=False, to_onehot_y=True, softmax=True)
        self._rows: dict[tuple[str, int], list[float]] = {}

    def forward(self, images: Tensor) -> Tensor:
        """Logits (batch, num_classes, rows, cols), see `SegmentationNet`."""
        logits: Tensor = self.segmentation_net(images)
        return logits

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=self.hparams.lr)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        image, segmentation = batch.image, batch.segmentation
        if self.hparams.augment:
            rank, world_size = rank_and_world_size()
            draws = torch.rand(world_size, len(image), NUM_DRAWS)  # of all processes, which draw the same
            image, segmentation = augment(image, segmentation, draws[rank])
        loss = self._loss(self(image), segmentation)
        self.log("train_loss", self.checked(loss), prog_bar=True, batch_size=len(image))
        return loss

    def on_validation_epoch_start(self) -> None:
        self._rows = {}

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        image, segmentation = batch.image, batch.segmentation
        logits = self(image)
        losses = torch.stack([self._loss(*pair) for pair in zip(logits.split(1), segmentation.split(1), strict=True)])
        dice = dice_of_classes(logits.argmax(dim=1), segmentation, self.segmentation_net.num_classes)
        rows = torch.cat([losses.float()[:, None], dice], dim=1).tolist()
        for fname, slice_num, row in zip(batch.fname, batch.slice_num.tolist(), rows, strict=True):
            self._rows[fname, slice_num] = row

    def on_validation_epoch_end(self) -> None:
        rows = {slice_: row for part in gather_objects(self._rows) for slice_, row in part.items()}
        values = torch.tensor([row for _, row in sorted(rows.items())], dtype=torch.float64)
        means = values.nanmean(dim=0)  # Dice is nan in an image without the class
        scores = {f"val_dice/class_{number}": mean for number, mean in enumerate(means.tolist()) if number > 0}
        scores = {name: mean for name, mean in scores.items() if mean == mean}
        require(bool(scores), "the validation must have an image with a class beside the background", "none")
        scores["val_dice"] = sum(scores.values()) / len(scores)
        self.log_dict({**scores, "val_loss": means[0].item()}, sync_dist=True)  # the same on all

    def _loss(self, logits: Tensor, segmentation: Tensor) -> Tensor:
        logits = logits.float()
        if self.dice_ce is None:
            return F.cross_entropy(logits, segmentation)
        loss: Tensor = self.dice_ce(logits, segmentation.unsqueeze(1))
        return loss

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        # here, as a GPU would have to be waited for
        highest, classes = int(batch.segmentation.max()), self.segmentation_net.num_classes
        demand, files = f"segmentation must hold classes from 0 to {classes - 1}", ", ".join(sorted(set(batch.fname)))
        require(highest < classes, demand, f"{highest} in one of {files}")
        return batch
