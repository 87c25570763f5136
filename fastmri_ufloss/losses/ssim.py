"""Structural similarity of magnitudes: ssim, dssim, ms_ssim.

Arguments, result and errors are those of `fastmri_ufloss.losses.images`; here ``data_range`` is needed, (batch,), the
largest intensity of each image's volume. The arithmetic is in float64: variances in a window are small differences.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fastmri_ufloss.losses.images import (
    FunctionLoss,
    Reduction,
    check_data_range,
    check_images,
    full_precision,
    reduce,
    unit_range,
)

__all__ = [
    "WINDOW",
    "DSSIMLoss",
    "MSSSIMLoss",
    "SSIMLoss",
    "dssim_loss",
    "gaussian_ssim",
    "ms_ssim_loss",
    "ssim_loss",
]

HOST_WINDOW = 7
WINDOW = 11
"""Rows and columns of the Gaussian window, which torchmetrics derives from sigma = 1.5."""
BETAS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
FLOOR = 1e-4


def ssim_loss(
    output: Tensor, target: Tensor, data_range: Tensor | float | None, *, reduction: Reduction = "mean"
) -> Tensor:
    """1 - SSIM by ``fastmri.SSIMLoss``: windows of 7x7 with equal weights, k1 = 0.01, k2 = 0.03; 0 to 2.

    Raises:
        ValueError: also if an image is smaller than the window.
    """
    import fastmri  # late, as torchmetrics below: other losses do without

    data_range = _checked("ssim", output, target, data_range, HOST_WINDOW)
    with full_precision(output):
        output, target = unit_range(output, data_range), unit_range(target.detach(), data_range)
        ones = output.new_ones(len(output))
        loss: Tensor = fastmri.SSIMLoss(HOST_WINDOW).to(output)(output, target, data_range=ones, reduced=False)
        return reduce(loss.mean(dim=(1, 2, 3)).to(data_range.dtype), reduction)


def dssim_loss(
    output: Tensor, target: Tensor, data_range: Tensor | float | None, *, reduction: Reduction = "mean"
) -> Tensor:
    """1 - SSIM with Wang's Gaussian windows of 11x11, sigma = 1.5, k1 = 0.01, k2 = 0.03; 0 to 2.

    The mean is over the windows that lie inside the image, as in Wang's code, scikit-image and piq. (torchmetrics,
    which computes the map, reflects the image at its borders and has a value for every pixel; a frame of 5 pixels is
    left out here. On a GPU its padding has no deterministic gradient, so that ``torch.use_deterministic_algorithms``
    refuses it.)

    Raises:
        ValueError: also if an image is smaller than the window.

    Pawar et al., "Enforcing Structural Similarity in Deep Learning MR Image Reconstruction", ISMRM 2019, with weight
    0.1 beside l2; SSIM: Wang et al., IEEE TIP 2004.
    """
    data_range = _checked("dssim", output, target, data_range, WINDOW)
    with full_precision(output):
        similarity = gaussian_ssim(unit_range(output, data_range), unit_range(target.detach(), data_range))
        return reduce((1 - similarity).to(data_range.dtype), reduction)


def ms_ssim_loss(
    output: Tensor,
    target: Tensor,
    data_range: Tensor | float | None,
    *,
    num_scales: int = len(BETAS),
    reduction: Reduction = "mean",
) -> Tensor:
    """1 - prod_j c_j^beta_j, j = 1..num_scales, the multi-scale SSIM; 0 to 1.

    c_j is the mean of SSIM's contrast and structure term at scale j, and of the whole SSIM at the last scale, with
    the windows of `dssim_loss`. The images of each further scale are means of 2x2 pixels (at an odd end, of those
    that are there). beta is 0.0448, 0.2856, 0.3001, 0.2363, 0.1333, and with fewer scales the first of these divided
    by their sum. A c_j below 1e-4 counts as 1e-4, without gradient: the power of a negative number is NaN, and the
    slope of the power at 0 is infinite.

    Args:
        output, target, data_range, reduction: at least 10 * 2^(num_scales - 1) + 1 rows and columns.
        num_scales: 1 to 5.

    Raises:
        ValueError: also if num_scales is not as above, or an image is too small.

    Wang, Simoncelli and Bovik, "Multi-scale structural similarity for image quality assessment", Asilomar 2003.
    """
    _check_num_scales(num_scales)
    check_images(output, target)
    _check_size(output, num_scales)
    data_range = check_data_range("ms_ssim", data_range, target)
    with full_precision(output):
        x, t = unit_range(output, data_range), unit_range(target.detach(), data_range)
        terms = []
        for _ in range(num_scales - 1):
            terms.append(_ssim_map(x, t, return_contrast_sensitivity=True))
            x, t = (F.avg_pool2d(image, 2, ceil_mode=True) for image in (x, t))
        terms.append(gaussian_ssim(x, t))
        betas = x.new_tensor(BETAS[:num_scales])
        if num_scales < len(BETAS):  # all five are as published, with a sum of 1.0001
            betas = betas / betas.sum()
        similarity = (torch.stack(terms, dim=1).clamp(min=FLOOR) ** betas).prod(dim=1)
        return reduce((1 - similarity).to(data_range.dtype), reduction)


class SSIMLoss(FunctionLoss):
    """`ssim_loss` as a module."""

    function = staticmethod(ssim_loss)


class DSSIMLoss(FunctionLoss):
    """`dssim_loss` as a module."""

    function = staticmethod(dssim_loss)


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


def gaussian_ssim(output: Tensor, target: Tensor) -> Tensor:
    """The mean SSIM over the windows inside each image, (batch,), of real images at a data range of 1."""
    border = WINDOW // 2
    inside = _ssim_map(output, target, return_full_image=True)[..., border:-border, border:-border]
    return inside.mean(dim=(1, 2, 3))


def _ssim_map(output: Tensor, target: Tensor, **what: bool) -> Tensor:
    """torchmetrics' map of SSIM, or its contrast and structure term, as ``what`` says."""
    from torchmetrics.functional.image import structural_similarity_index_measure

    result: Any = structural_similarity_index_measure(output, target, reduction="none", data_range=1.0, **what)
    values: Tensor = result[1]
    return values


def _checked(name: str, output: Tensor, target: Tensor, data_range: Tensor | float | None, window: int) -> Tensor:
    """The data range, once images and it are as they must be."""
    check_images(output, target)
    if min(output.shape[-2:]) < window:
        raise ValueError(f"{name} needs images of at least {window}x{window}, got {tuple(output.shape[-2:])}")
    return check_data_range(name, data_range, target)


def _check_num_scales(num_scales: int) -> None:
    if not isinstance(num_scales, int) or not 1 <= num_scales <= len(BETAS):
        raise ValueError(f"num_scales must be an integer from 1 to {len(BETAS)}, got {num_scales!r}")


def _check_size(images: Tensor, num_scales: int) -> None:
    """Raise ValueError unless the window fits into the images at the last scale."""
    shortest = min(images.shape[-2:])
    sizes = [(WINDOW - 1) * 2**scale + 1 for scale in range(num_scales)]
    if shortest < sizes[-1]:
        fitting = sum(size <= shortest for size in sizes)
        advice = f": use num_scales={fitting} or less" if fitting else ""
        raise ValueError(
            f"ms_ssim with num_scales={num_scales} needs images of at least {sizes[-1]}x{sizes[-1]}, "
            f"got {tuple(images.shape[-2:])}{advice}"
        )
