"""Losses, each called ``loss(output, target, data_range)`` with images (batch, 1, rows, cols)."""

from fastmri_ufloss.losses.pixel import L1Loss, L2Loss, SSIMLoss, l1_loss, l2_loss
from fastmri_ufloss.losses.ufloss import UFLoss, ufloss_per_image
from fastmri_ufloss.losses.weighted import LOSS_NAMES, WeightedLoss, make_loss

__all__ = [
    "LOSS_NAMES",
    "L1Loss",
    "L2Loss",
    "SSIMLoss",
    "UFLoss",
    "WeightedLoss",
    "l1_loss",
    "l2_loss",
    "make_loss",
    "ufloss_per_image",
]
