"""The Dice of segmentations."""

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["dice_of_classes"]


def dice_of_classes(labels: Tensor, segmentation: Tensor, num_classes: int) -> Tensor:
    """2 |A and B| / (|A| + |B|) of each image and class but the background, nan where the image has no such class.

    Args:
        labels: class numbers (batch, rows, cols).
        segmentation: the true ones, (batch, rows, cols).
        num_classes: with the background.

    Returns:
        (batch, num_classes - 1), float32.
    """
    found, true = (F.one_hot(x, num_classes)[..., 1:].flatten(1, 2) for x in (labels, segmentation))
    dice = 2 * (found & true).sum(dim=1) / (found.sum(dim=1) + true.sum(dim=1))
    return torch.where(true.any(dim=1), dice, torch.nan)
