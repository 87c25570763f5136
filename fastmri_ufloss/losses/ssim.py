"""Structural similarity of magnitudes: ssim, dssim, ms_ssim.

Arguments, result and errors are those of `fastmri_ufloss.losses.images`; here ``data_range`` is needed, (batch,), the
largest intensity of each image's volume, positive and in the unit of the images; otherwise ValueError, or on a GPU
NaN, as it would have to be waited for. Images must not be smaller than the window. Their gradients are deterministic
on every device.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from fastmri_ufloss.checks import check, require
from fastmri_ufloss.losses.images import Range, Reduction, check_images, loss_module, magnitude, no_autocast, reduce

__all__ = [
    *("DSSIMLoss", "MSSSIMLoss", "SSIMLoss", "at_unit_range", "dssim_loss", "gaussian_ssim", "ms_ssim_loss"),
    "ssim_loss",
]

HOST_WINDOW = 7
HOST_WEIGHTS = [1 / HOST_WINDOW] * HOST_WINDOW
WINDOW = 11  # rows and columns of the Gaussian window
SIGMA = 1.5
WEIGHTS = [math.exp(-((i - WINDOW // 2) ** 2) / (2 * SIGMA**2)) for i in range(WINDOW)]
WEIGHTS = [weight / sum(WEIGHTS) for weight in WEIGHTS]  # of lines: the window is their product
C1, C2 = 0.01**2, 0.03**2
BETAS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
FLOOR = 1e-4


def ssim_loss(output: Tensor, target: Tensor, data_range: Range, *, reduction: Reduction = "mean") -> Tensor:
    """1 - SSIM by ``fastmri.SSIMLoss``: windows of 7x7 with equal weights, k1 = 0.01, k2 = 0.03; 0 to 2."""
    x, t = at_unit_range("ssim", output, target, data_range, [HOST_WINDOW])
    # fastMRI's variances are those of samples
    return reduce(1 - _ssim(x, t, HOST_WEIGHTS, HOST_WINDOW**2 / (HOST_WINDOW**2 - 1))[0], reduction)


def dssim_loss(output: Tensor, target: Tensor, data_range: Range, *, reduction: Reduction = "mean") -> Tensor:
    """1 - SSIM with Wang's Gaussian windows of 11x11, sigma = 1.5, k1 = 0.01, k2 = 0.03; 0 to 2.

    The mean is over the windows that lie inside the image, as in Wang's code, scikit-image and piq.

    Pawar et al., "Enforcing Structural Similarity in Deep Learning MR Image Reconstruction", ISMRM 2019, with weight
    0.1 beside l2; SSIM: Wang et al., IEEE TIP 2004.
    """
    x, t = at_unit_range("dssim", output, target, data_range, [WINDOW])
    return reduce(1 - gaussian_ssim(x, t), reduction)


def ms_ssim_loss(
    output: Tensor, target: Tensor, data_range: Range, *, num_scales: int = len(BETAS), reduction: Reduction = "mean"
) -> Tensor:
    """1 - prod_j c_j^beta_j, j = 1..num_scales, the multi-scale SSIM; 0 to 1.

    c_j is the mean of SSIM's contrast and structure term at scale j, and of the whole SSIM at the last scale, with
    the windows of `dssim_loss`. The images of each further scale are means of 2x2 pixels (at an odd end, of those
    that are there). beta is 0.0448, 0.2856, 0.3001, 0.2363, 0.1333, and with fewer scales the first of these divided
    by their sum. A c_j below 1e-4 counts as 1e-4, without gradient. num_scales is 1 to 5, and images have at least
    10 * 2^(num_scales - 1) + 1 rows and columns, ValueError otherwise.

    Wang, Simoncelli and Bovik, "Multi-scale structural similarity for image quality assessment", Asilomar 2003.
    """
    _check_num_scales(num_scales)
    sizes = [(WINDOW - 1) * 2**scale + 1 for scale in range(num_scales)]
    x, t = at_unit_range(f"ms_ssim with num_scales={num_scales}", output, target, data_range, sizes)
    with no_autocast(output):
        terms = []
        for _ in range(num_scales - 1):
            terms.append(_ssim(x, t, WEIGHTS)[1])
            x, t = (F.avg_pool2d(image, 2, ceil_mode=True) for image in (x, t))
        terms.append(gaussian_ssim(x, t))
        betas = x.new_tensor(BETAS[:num_scales])
        if num_scales < len(BETAS):  # all five are as published, with a sum of 1.0001
            betas = betas / betas.sum()
        similarity = (torch.stack(terms, dim=1).clamp(min=FLOOR) ** betas).prod(dim=1)
        return reduce(1 - similarity, reduction)


SSIMLoss = loss_module("SSIMLoss", ssim_loss)
DSSIMLoss = loss_module("DSSIMLoss", dssim_loss)


class MSSSIMLoss(nn.Module):
    """`ms_ssim_loss` as a module."""

    def __init__(self, *, num_scales: int = len(BETAS)) -> None:
        super().__init__()
        _check_num_scales(num_scales)
        self.num_scales = num_scales

    def forward(self, output: Tensor, target: Tensor, data_range: Range = None) -> Tensor:
        return ms_ssim_loss(output, target, data_range, num_scales=self.num_scales)


def gaussian_ssim(output: Tensor, target: Tensor) -> Tensor:
    """The mean SSIM over the windows inside each image, (batch,), of real images at a data range of 1."""
    return _ssim(output, target, WEIGHTS)[0]


def _ssim(x: Tensor, t: Tensor, weights: Sequence[float], correction: float = 1.0) -> tuple[Tensor, Tensor]:
    """The means of SSIM, and of its contrast and structure term, over the windows inside of each image, (batch,)."""
    images = torch.cat([x, t], dim=1)
    # variances in a window are small differences; without the image's mean they are differences of smaller numbers
    means = images.detach().mean(dim=(2, 3), keepdim=True)
    images = images - means
    products = torch.cat([images.square(), images[:, :1] * images[:, 1:]], dim=1)
    windows: Tensor = _WindowMeans.apply(torch.cat([images, products], dim=1), weights)
    mx, mt, mxx, mtt, mxt = windows.unbind(dim=1)
    vx, vt, vxt = (correction * (square - a * b) for square, a, b in ((mxx, mx, mx), (mtt, mt, mt), (mxt, mx, mt)))
    contrast = (2 * vxt + C2) / (vx + vt + C2)
    mx, mt = mx + means[:, 0], mt + means[:, 1]
    brightness = (2 * mx * mt + C1) / (mx * mx + mt * mt + C1)
    return (brightness * contrast).mean(dim=(1, 2)), contrast.mean(dim=(1, 2))


class _WindowMeans(torch.autograd.Function):
    """Means over the windows inside of images (batch, n, rows, cols), with the same symmetric weights on each axis.

    Slices rather than a convolution, which a GPU may round to 10 bits.
    """

    @staticmethod
    def forward(ctx: Any, images: Tensor, weights: Sequence[float]) -> Tensor:
        ctx.weights = weights
        for dim in (2, 3):
            count = images.shape[dim] - len(weights) + 1
            total = images.narrow(dim, 0, count) * weights[0]
            for i, weight in enumerate(weights[1:], 1):
                total.add_(images.narrow(dim, i, count), alpha=weight)
            images = total
        return images

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        padded = F.pad(grad, (len(ctx.weights) - 1,) * 4)
        return _WindowMeans.forward(ctx, padded, ctx.weights), None


def at_unit_range(
    name: str, output: Tensor, target: Tensor, data_range: Range, sizes: Sequence[int]
) -> tuple[Tensor, Tensor]:
    """The magnitudes of checked images divided by their data range, in float32, or in float64 if the target is.

    An image needs sizes[n - 1] rows and columns for n scales.
    """
    check_images(output, target)
    rows, cols = output.shape[-2:]
    if min(rows, cols) < sizes[-1]:
        fitting = sum(size <= min(rows, cols) for size in sizes)
        advice = f": use num_scales={fitting} or less" if fitting else ""
        raise ValueError(f"{name} needs images of at least {sizes[-1]}x{sizes[-1]}, got {(rows, cols)}{advice}")
    if data_range is None:
        raise ValueError(f"{name} needs data_range, the largest intensity of each image's volume, of shape (batch,)")
    precision = torch.float64 if target.dtype in (torch.float64, torch.complex128) else torch.float32
    ranges = torch.as_tensor(data_range).detach()
    fits = ranges.ndim <= 1 and ranges.numel() in (1, len(target))
    require(fits, f"data_range must have shape ({len(target)},)", tuple(ranges.shape))
    is_range = (ranges > 0) & ranges.isfinite()
    if ranges.device.type == "cpu" and not bool(is_range.all()):  # a GPU would have to be waited for
        raise ValueError(f"data_range must be positive and finite, got {ranges.tolist()}")
    ranges = torch.where(is_range, ranges, torch.nan).to(precision).to(target.device)  # not every device has float64
    x, t = (magnitude(image).to(precision) / ranges.reshape(-1, 1, 1, 1) for image in (output, target.detach()))
    return x, t


def _check_num_scales(num_scales: int) -> None:
    fits = isinstance(num_scales, int) and 1 <= num_scales <= len(BETAS)
    check(fits, "num_scales", f"an integer from 1 to {len(BETAS)}", repr(num_scales))
