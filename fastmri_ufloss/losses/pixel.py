"""Losses on pixels: l2, l1 and fastMRI's SSIM, on magnitude or complex images."""

import fastmri
import torch
from torch import Tensor, nn

from fastmri_ufloss.losses.checks import check_images
from fastmri_ufloss.mri.patch_images import image_scale

__all__ = ["L1Loss", "L2Loss", "SSIMLoss", "l1_loss", "l2_loss"]


def _scale(target: Tensor) -> Tensor:
    """`image_scale` of each target, shaped to divide the images (batch, 1, rows, cols)."""
    return image_scale(target).reshape(-1, 1, 1, 1)


def _channels(images: Tensor) -> Tensor:
    return torch.view_as_real(images.resolve_conj()) if images.is_complex() else images


def l2_loss(output: Tensor, target: Tensor) -> Tensor:
    """Mean of |x - t|^2 over pixels and channels, each image divided by the scale of its target.

    Args:
        output: (batch, 1, rows, cols), real magnitude or complex; the mean is over real and imaginary part.
        target: the same shape and kind.

    Returns:
        Scalar, >= 0.

    Raises:
        ValueError: if shapes or kinds differ.
    """
    check_images(output, target)
    return _channels((output - target) / _scale(target)).square().mean()


def l1_loss(output: Tensor, target: Tensor) -> Tensor:
    """Mean of |x - t| over pixels and channels, each image divided by the scale of its target; see `l2_loss`."""
    check_images(output, target)
    return _channels((output - target) / _scale(target)).abs().mean()


class L2Loss(nn.Module):
    """`l2_loss` with the call of ``fastmri.SSIMLoss``; ``data_range`` is not needed."""

    def forward(self, output: Tensor, target: Tensor, data_range: Tensor | None = None) -> Tensor:
        return l2_loss(output, target)


class L1Loss(nn.Module):
    """`l1_loss` with the call of ``fastmri.SSIMLoss``; ``data_range`` is not needed."""

    def forward(self, output: Tensor, target: Tensor, data_range: Tensor | None = None) -> Tensor:
        return l1_loss(output, target)


class SSIMLoss(nn.Module):
    """1 - SSIM of the magnitudes by ``fastmri.SSIMLoss``, 0 to 2.

    Args of the call: ``output`` and ``target`` (batch, 1, rows, cols), real magnitude or complex;
    ``data_range`` (batch,), the maximum of each target's magnitude if not given.
    """

    def __init__(self) -> None:
        super().__init__()
        self.ssim = fastmri.SSIMLoss()

    def forward(self, output: Tensor, target: Tensor, data_range: Tensor | None = None) -> Tensor:
        check_images(output, target)
        output, target = (x.abs() if x.is_complex() else x for x in (output, target))
        scale = _scale(target)  # the squares of raw intensities would underflow
        if data_range is None:
            data_range = target.amax(dim=(1, 2, 3))
        data_range = (data_range.to(target) / scale.flatten()).clamp_min(torch.finfo(torch.float32).eps)
        with torch.autocast(output.device.type, enabled=False):
            return self.ssim(output.float() / scale, target.float() / scale, data_range=data_range.float())
