"""ssim: fastMRI's SSIM loss."""

import fastmri
from torch import Tensor, nn

from fastmri_ufloss.losses.images import (
    Reduction,
    check_data_range,
    check_images,
    full_precision,
    reduce,
    unit_range,
)

__all__ = ["SSIMLoss", "ssim_loss"]

WINDOW = 7


def ssim_loss(
    output: Tensor, target: Tensor, data_range: Tensor | float | None, *, reduction: Reduction = "mean"
) -> Tensor:
    """1 - SSIM of the magnitudes by ``fastmri.SSIMLoss``: windows of 7x7 with equal weights, k1 = 0.01, k2 = 0.03.

    The arithmetic is in float64, see `fastmri_ufloss.losses.images.unit_range`.

    Args:
        output: (batch, 1, rows, cols), real magnitude, or complex, of which the magnitude is taken.
        target: the same shape and kind.
        data_range: (batch,), the largest intensity of each image's volume.
        reduction: see `fastmri_ufloss.losses.images.Reduction`.

    Returns:
        Scalar or (batch,), 0 to 2, 0 for equal images.

    Raises:
        ValueError: if shapes or kinds differ, an image is smaller than the window, or data_range is missing or not
            positive.
    """
    check_images(output, target)
    if min(output.shape[-2:]) < WINDOW:
        raise ValueError(f"ssim needs images of at least {WINDOW}x{WINDOW}, got {tuple(output.shape[-2:])}")
    data_range = check_data_range("ssim", data_range, target)
    with full_precision(output):
        output, target = unit_range(output, data_range), unit_range(target.detach(), data_range)
        ones = output.new_ones(len(output))
        loss: Tensor = fastmri.SSIMLoss(WINDOW).to(output)(output, target, data_range=ones, reduced=False)
        return reduce(loss.mean(dim=(1, 2, 3)).to(data_range.dtype), reduction)


class SSIMLoss(nn.Module):
    """`ssim_loss` as a module."""

    def forward(self, output: Tensor, target: Tensor, data_range: Tensor | float | None = None) -> Tensor:
        return ssim_loss(output, target, data_range)
