"""ms_ssim: 1 - SSIM over several scales."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics.functional.image import structural_similarity_index_measure

from fastmri_ufloss.losses.dssim import WINDOW, gaussian_ssim
from fastmri_ufloss.losses.images import (
    Reduction,
    check_data_range,
    check_images,
    full_precision,
    reduce,
    unit_range,
)

__all__ = ["MSSSIMLoss", "ms_ssim_loss"]

BETAS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
FLOOR = 1e-4


def ms_ssim_loss(
    output: Tensor,
    target: Tensor,
    data_range: Tensor | float | None,
    *,
    num_scales: int = len(BETAS),
    reduction: Reduction = "mean",
) -> Tensor:
    """1 - prod_j c_j^beta_j of the magnitudes, j = 1..num_scales, the multi-scale SSIM.

    c_j is the mean of SSIM's contrast and structure term at scale j, and of the whole SSIM at the last scale, with
    the windows of `fastmri_ufloss.losses.dssim.dssim_loss`. The images of each further scale are means of 2x2 pixels
    (at an odd end, of those that are there). beta is 0.0448, 0.2856, 0.3001, 0.2363, 0.1333, and with fewer scales
    the first of these divided by their sum. A c_j below 1e-4 counts as 1e-4, without gradient: the power of a
    negative number is NaN, and the slope of the power at 0 is infinite. (Wang, Simoncelli and Bovik, "Multi-scale
    structural similarity for image quality assessment", Asilomar 2003.)

    Args:
        output: (batch, 1, rows, cols), real magnitude, or complex, of which the magnitude is taken; at least
            10 * 2^(num_scales - 1) + 1 rows and columns.
        target: the same shape and kind.
        data_range: (batch,), the largest intensity of each image's volume.
        num_scales: 1 to 5.
        reduction: see `fastmri_ufloss.losses.images.Reduction`.

    Returns:
        Scalar or (batch,), 0 to 1, 0 for equal images.

    Raises:
        ValueError: if shapes or kinds differ, an image is too small, data_range is missing or not positive, or
            num_scales is not as above.
    """
    _check_num_scales(num_scales)
    check_images(output, target)
    _check_size(output, num_scales)
    data_range = check_data_range("ms_ssim", data_range, target)
    with full_precision(output):
        x, t = unit_range(output, data_range), unit_range(target.detach(), data_range)
        terms = []
        for _ in range(num_scales - 1):
            _, contrast = structural_similarity_index_measure(
                x, t, reduction="none", data_range=1.0, return_contrast_sensitivity=True
            )
            terms.append(contrast)
            x, t = (F.avg_pool2d(image, 2, ceil_mode=True) for image in (x, t))
        terms.append(gaussian_ssim(x, t))
        betas = x.new_tensor(BETAS[:num_scales])
        if num_scales < len(BETAS):  # all five are as published, with a sum of 1.0001
            betas = betas / betas.sum()
        similarity = (torch.stack(terms, dim=1).clamp(min=FLOOR) ** betas).prod(dim=1)
        return reduce((1 - similarity).to(data_range.dtype), reduction)


class MSSSIMLoss(nn.Module):
    """`ms_ssim_loss` as a module.

    Args:
        num_scales: 1 to 5; images need at least 10 * 2^(num_scales - 1) + 1 rows and columns.

    Raises:
        ValueError: if num_scales is not as above.
    """

    def __init__(self, *, num_scales: int = len(BETAS)) -> None:
        super().__init__()
        _check_num_scales(num_scales)
        self.num_scales = num_scales

    def forward(self, output: Tensor, target: Tensor, data_range: Tensor | float | None = None) -> Tensor:
        return ms_ssim_loss(output, target, data_range, num_scales=self.num_scales)


def _check_num_scales(num_scales: int) -> None:
    if not isinstance(num_scales, int) or not 1 <= num_scales <= len(BETAS):
        raise ValueError(f"num_scales must be an integer from 1 to {len(BETAS)}, got {num_scales!r}")


def _check_size(images: Tensor, num_scales: int) -> None:
    """Raise ValueError unless the window fits into the images at the last scale."""
    shortest = min(images.shape[-2:])
    sizes = [(WINDOW - 1) * 2**scale + 1 for scale in range(num_scales)]
    if shortest < sizes[-1]:
        fitting = sum(size <= shortest for size in sizes)
        advice = f": use num_scales={fitting} or less (--ms_ssim_scales in the recipes)" if fitting else ""
        raise ValueError(
            f"ms_ssim with num_scales={num_scales} needs images of at least {sizes[-1]}x{sizes[-1]}, "
            f"got {tuple(images.shape[-2:])}{advice}"
        )
