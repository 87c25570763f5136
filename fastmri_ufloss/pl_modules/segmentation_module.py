"""Training of a segmentation network, which tells by its Dice how well structures can be seen."""

from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastmri_ufloss.distributed import gather_objects, rank_and_world_size
from fastmri_ufloss.metrics.semantic_interpretability import dice_of_classes
from fastmri_ufloss.models.segmentation import SegmentationNet
from fastmri_ufloss.pl_modules.base_module import BaseModule
from fastmri_ufloss.pl_modules.segmentation_data import augment, draw

__all__ = ["SegmentationLoss", "SegmentationModule"]

SegmentationLoss = Literal["cross_entropy", "dice_ce"]


class SegmentationModule(BaseModule):
    """Trains a `SegmentationNet` on fully sampled images, batches of `SegmentationSample`.

    Validation logs the Dice of each class, ``val_dice/class_N``, over the images that have the class; their mean,
    ``val_dice``; and ``val_loss``. The background is no class there, and one that no image has is left out. Every
    image counts once, whichever process has it and however often.

    Several processes give what one gives with the union of their batches. Random numbers are drawn for the batches
    of all processes, so that they agree, and a resume repeats them, where torch's generators do: see `SeededSteps`.

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
        if loss not in get_args(SegmentationLoss):
            raise ValueError(f"loss must be one of {', '.join(get_args(SegmentationLoss))}, got {loss!r}")
        if not lr > 0:
            raise ValueError(f"lr must be positive, got {lr}")
        self.save_hyperparameters()
        self.lr = lr
        self.augment = augment
        self.segmentation_net = SegmentationNet(
            num_classes, chans=chans, num_levels=num_levels, num_res_units=num_res_units
        )
        self.dice_ce = _make_dice_ce() if loss == "dice_ce" else None
        self._rows: dict[tuple[str, int], list[float]] = {}

    def forward(self, images: Tensor) -> Tensor:
        """Logits (batch, num_classes, rows, cols), see `SegmentationNet`."""
        logits: Tensor = self.segmentation_net(images)
        return logits

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam."""
        return torch.optim.Adam(self.parameters(), lr=self.lr)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """The loss of a batch."""
        image, segmentation = self._checked(batch)
        if self.augment:
            rank, world_size = rank_and_world_size()
            image, segmentation = augment(image, segmentation, draw(len(image), rank=rank, world_size=world_size))
        loss = self._loss(self(image), segmentation)
        self.log("train_loss", loss.detach(), prog_bar=True, batch_size=len(image))
        return loss

    def on_validation_epoch_start(self) -> None:
        """Forget the images of an earlier validation."""
        self._rows = {}

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Loss and Dice of each image."""
        image, segmentation = self._checked(batch)
        logits = self(image)
        losses = torch.stack([self._loss(*pair) for pair in zip(logits.split(1), segmentation.split(1), strict=True)])
        dice = dice_of_classes(logits.argmax(dim=1), segmentation, self.segmentation_net.num_classes)
        rows = torch.cat([losses.float()[:, None], dice], dim=1).tolist()
        for fname, number, row in zip(batch.fname, batch.slice_num.tolist(), rows, strict=True):
            self._rows[fname, number] = row

    def on_validation_epoch_end(self) -> None:
        """Log the means over the images of all processes."""
        rows = {slice_: row for part in gather_objects(self._rows) for slice_, row in part.items()}
        values = torch.tensor([row for _, row in sorted(rows.items())], dtype=torch.float64)
        means = values.nanmean(dim=0)  # Dice is nan in an image without the class
        scores = {f"val_dice/class_{number}": mean for number, mean in enumerate(means.tolist()) if number > 0}
        scores = {name: mean for name, mean in scores.items() if mean == mean}
        if not scores:
            raise ValueError("the validation must have an image with a class beside the background, got none")
        scores["val_dice"] = sum(scores.values()) / len(scores)
        self.log_dict({**scores, "val_loss": means[0].item()}, sync_dist=True)  # the same on all

    def _loss(self, logits: Tensor, segmentation: Tensor) -> Tensor:
        logits = logits.float()
        if self.dice_ce is None:
            return F.cross_entropy(logits, segmentation)
        loss: Tensor = self.dice_ce(logits, segmentation.unsqueeze(1))
        return loss

    def _checked(self, batch: Any) -> tuple[Tensor, Tensor]:
        """Images and segmentation of a batch."""
        highest, classes = int(batch.segmentation.max()), self.segmentation_net.num_classes
        if highest >= classes:
            raise ValueError(
                f"segmentation must hold classes from 0 to {classes - 1}, got {highest} in one of "
                f"{', '.join(sorted(set(batch.fname)))}"
            )
        return batch.image, batch.segmentation


def _make_dice_ce() -> nn.Module:
    """Of each image by itself, so that its mean does not depend on how a batch is divided."""
    from monai.losses import DiceCELoss  # with the network's MONAI

    return DiceCELoss(include_background=False, to_onehot_y=True, softmax=True)
