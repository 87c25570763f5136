"""hfen: the difference of the fine structures, by the fine structures of the target."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fastmri_ufloss.losses.images import Reduction, at_target_scale, channels, full_precision, magnitude, reduce

__all__ = ["HFENLoss", "hfen_loss", "laplacian_kernel", "laplacian_of_gaussian"]

KERNEL_SIZE = 15
SIGMA = 1.5
FLOOR = 1e-3


def laplacian_of_gaussian(images: Tensor) -> Tensor:
    """LoG(x) = h * x, the convolution with a Laplacian of a Gaussian of 15x15 pixels, sigma = 1.5.

    h is MATLAB's ``fspecial('log', 15, 1.5)``: (r^2 - 2 sigma^2) / sigma^4 exp(-r^2 / (2 sigma^2)), divided by the
    sum of the exponentials, less its mean, so that it sums to 0. The pixels of the border are repeated outwards
    (scipy's ``mode="nearest"``), so that a constant image gives 0 and any size of image is allowed.

    Args:
        images: x, (batch, 1, rows, cols), real, or complex, of which the real and the imaginary part are filtered.

    Returns:
        The same shape and kind, in at least float32.

    Raises:
        ValueError: if images has another shape.
    """
    if images.ndim != 4 or images.shape[1] != 1 or images.numel() == 0:
        raise ValueError(f"images must have shape (batch, 1, rows, cols), got {tuple(images.shape)}")
    parts = magnitude(channels(images))  # real already: this makes float32 of half precision
    with full_precision(images):
        padded = F.pad(parts.flatten(0, 1).unsqueeze(1), (KERNEL_SIZE // 2,) * 4, mode="replicate")
        filtered = F.conv2d(padded, laplacian_kernel().to(parts)).reshape(parts.shape)
    if not images.is_complex():
        return filtered
    return torch.view_as_complex(filtered.permute(0, 2, 3, 1).contiguous()).unsqueeze(1)


def hfen_loss(
    output: Tensor, target: Tensor, data_range: Tensor | float | None = None, *, reduction: Reduction = "mean"
) -> Tensor:
    """|LoG(x - t)|_2 / |LoG(t)|_2 of each image, the high-frequency error norm; for LoG see `laplacian_of_gaussian`.

    The filter is linear, so complex images are filtered as they are, and errors of the phase count. (Ravishankar
    and Bresler, IEEE TMI 2011, take magnitudes and do not divide.) The denominator is at least 1e-3 |t|_2, since a
    constant target has no fine structures; where the target is zero everywhere, it is the square root of the number
    of pixels.

    Args:
        output: x, (batch, 1, rows, cols), real magnitude or complex.
        target: t, the same shape and kind.
        data_range: not used.
        reduction: see `fastmri_ufloss.losses.images.Reduction`.

    Returns:
        Scalar or (batch,), >= 0, 0 for equal images, 1 for an output of zeros.

    Raises:
        ValueError: if shapes or kinds differ.
    """
    output, target = at_target_scale(output, target)
    norm, fine = _norm(target), _norm(laplacian_of_gaussian(target))
    floor = torch.where(norm == 0, float(target[0].numel()) ** 0.5, FLOOR * norm)
    return reduce(_norm(laplacian_of_gaussian(output - target)) / torch.maximum(fine, floor), reduction)


class HFENLoss(nn.Module):
    """`hfen_loss` as a module."""

    def forward(self, output: Tensor, target: Tensor, data_range: Tensor | float | None = None) -> Tensor:
        return hfen_loss(output, target)


def _norm(images: Tensor) -> Tensor:
    """|x|_2 of each image, (batch,); its gradient at 0 is 0."""
    return torch.linalg.vector_norm(channels(images), dim=(1, 2, 3))


def laplacian_kernel() -> Tensor:
    """h of `laplacian_of_gaussian`, (1, 1, size, size), float64."""
    line = torch.arange(KERNEL_SIZE, dtype=torch.float64) - KERNEL_SIZE // 2
    squared = line.square()[:, None] + line.square()
    gaussian = torch.exp(-squared / (2 * SIGMA**2))
    laplacian = (squared - 2 * SIGMA**2) / SIGMA**4 * gaussian / gaussian.sum()
    return (laplacian - laplacian.mean())[None, None]
