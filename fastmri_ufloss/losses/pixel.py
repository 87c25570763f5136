"""Differences of pixels: l1, l2, nmse. Arguments, result and errors are those of `fastmri_ufloss.losses.images`."""

import torch
from torch import Tensor

from fastmri_ufloss.losses.images import FunctionLoss, Reduction, at_target_scale, channels, reduce

__all__ = ["L1Loss", "L2Loss", "NMSELoss", "l1_loss", "l2_loss", "nmse_loss"]


def l1_loss(
    output: Tensor, target: Tensor, data_range: Tensor | float | None = None, *, reduction: Reduction = "mean"
) -> Tensor:
    """The mean of |x - t| over pixels and channels (real and imaginary part), at the scale of the target."""
    output, target = at_target_scale(output, target)
    return reduce(channels(output - target).abs().mean(dim=(1, 2, 3)), reduction)


def l2_loss(
    output: Tensor, target: Tensor, data_range: Tensor | float | None = None, *, reduction: Reduction = "mean"
) -> Tensor:
    """The mean of |x - t|^2 over pixels and channels (real and imaginary part), at the scale of the target."""
    output, target = at_target_scale(output, target)
    return reduce(channels(output - target).square().mean(dim=(1, 2, 3)), reduction)


def nmse_loss(
    output: Tensor, target: Tensor, data_range: Tensor | float | None = None, *, reduction: Reduction = "mean"
) -> Tensor:
    """|x - t|^2 / |t|^2 of each image, 1 for an output of zeros; fastMRI's NMSE is the same of a volume.

    Where the target is zero everywhere, the number of pixels takes the place of its energy.
    """
    output, target = at_target_scale(output, target)
    error = channels(output - target).square().sum(dim=(1, 2, 3))
    energy = channels(target).square().sum(dim=(1, 2, 3))
    return reduce(error / torch.where(energy == 0, float(target[0].numel()), energy), reduction)


class L1Loss(FunctionLoss, function=l1_loss):
    """`l1_loss` as a module."""


class L2Loss(FunctionLoss, function=l2_loss):
    """`l2_loss` as a module."""


class NMSELoss(FunctionLoss, function=nmse_loss):
    """`nmse_loss` as a module."""
