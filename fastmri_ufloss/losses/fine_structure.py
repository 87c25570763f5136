"""Differences of edges and of spatial frequencies: edge, hfen, frequency.

Arguments, result and errors are those of `fastmri_ufloss.losses.images`.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from fastmri_ufloss.losses.images import (
    Range,
    Reduction,
    at_target_scale,
    channels,
    check_shape,
    loss_module,
    magnitude,
    no_autocast,
    reduce,
)

__all__ = ["EdgeLoss", "FrequencyLoss", "HFENLoss", "edge_loss", "frequency_loss", "hfen_loss"]

KERNEL_SIZE = 15
SIGMA = 1.5
FLOOR = 1e-3


def sobel_magnitude(images: Tensor) -> Tensor:
    """sqrt((gx^2 + gy^2) / 2) of the magnitudes, with Sobel's derivatives gx, gy, as ``skimage.filters.sobel``.

    gx is the filter [1, 2, 1]/4 down the columns and [-1, 0, 1] along the rows, gy the other way round; the pixels
    of the border are repeated outwards. Images are (batch, 1, rows, cols), ValueError otherwise; the result has the
    same shape, at least float32.
    """
    check_shape("images", images)
    # slices rather than a convolution: exact whatever autocast and TF32 make of convolutions
    padded = F.pad(magnitude(images), (1, 1, 1, 1), mode="replicate")
    along = padded[..., :, 2:] - padded[..., :, :-2]
    down = padded[..., 2:, :] - padded[..., :-2, :]
    gx = (along[..., :-2, :] + 2 * along[..., 1:-1, :] + along[..., 2:, :]) / 4
    gy = (down[..., :, :-2] + 2 * down[..., :, 1:-1] + down[..., :, 2:]) / 4
    # abs of a complex number, because its gradient at 0 is 0; that of a square root is NaN
    return torch.complex(gx, gy).abs() / 2**0.5


def edge_loss(output: Tensor, target: Tensor, data_range: Range = None, *, reduction: Reduction = "mean") -> Tensor:
    """The mean over pixels of (G(x) - G(t))^2 of the magnitudes, G = `sobel_magnitude`, at the scale of the target.

    An outlook of Pawar et al., ISMRM 2019.
    """
    output, target = at_target_scale(output, target)
    difference = sobel_magnitude(output) - sobel_magnitude(target)
    return reduce(difference.square().mean(dim=(1, 2, 3)), reduction)


def laplacian_of_gaussian(images: Tensor) -> Tensor:
    """LoG(x) = h * x, the convolution with a Laplacian of a Gaussian of 15x15 pixels, sigma = 1.5.

    h is MATLAB's ``fspecial('log', 15, 1.5)``: (r^2 - 2 sigma^2) / sigma^4 exp(-r^2 / (2 sigma^2)), divided by the
    sum of the exponentials, less its mean. The pixels of the border are repeated outwards, so that a constant image
    gives 0. Images are (batch, 1, rows, cols), ValueError otherwise, real or complex, where both parts are filtered;
    the result has the same shape and kind, in at least float32.
    """
    check_shape("images", images)
    parts = magnitude(channels(images))  # real already: this makes float32 of half precision
    with no_autocast(images):
        padded = F.pad(parts.flatten(0, 1).unsqueeze(1), (KERNEL_SIZE // 2,) * 4, mode="replicate")
        filtered = F.conv2d(padded, laplacian_kernel().to(parts, non_blocking=True)).reshape(parts.shape)
    if not images.is_complex():
        return filtered
    return torch.view_as_complex(filtered.permute(0, 2, 3, 1).contiguous()).unsqueeze(1)


def laplacian_kernel() -> Tensor:
    """h of `laplacian_of_gaussian`, (1, 1, size, size), float64."""
    line = torch.arange(KERNEL_SIZE, dtype=torch.float64) - KERNEL_SIZE // 2
    squared = line.square()[:, None] + line.square()
    gaussian = torch.exp(-squared / (2 * SIGMA**2))
    laplacian = (squared - 2 * SIGMA**2) / SIGMA**4 * gaussian / gaussian.sum()
    return (laplacian - laplacian.mean())[None, None]


def hfen_loss(output: Tensor, target: Tensor, data_range: Range = None, *, reduction: Reduction = "mean") -> Tensor:
    """|LoG(x - t)|_2 / |LoG(t)|_2 of each image, the high-frequency error norm; 1 for an output of zeros.

    For LoG see `laplacian_of_gaussian`; errors of the phase of complex images count. The denominator is at least
    1e-3 |t|_2, since a constant target has no fine structures; where the target is zero everywhere, it is the square
    root of the number of pixels. (Ravishankar and Bresler, IEEE TMI 2011, take magnitudes and do not divide.)
    """
    output, target = at_target_scale(output, target)
    norm, fine = _norm(target), _norm(laplacian_of_gaussian(target))
    floor = torch.where(norm == 0, float(target[0].numel()) ** 0.5, FLOOR * norm)
    return reduce(_norm(laplacian_of_gaussian(output - target)) / torch.maximum(fine, floor), reduction)


def frequency_loss(
    output: Tensor, target: Tensor, data_range: Range = None, *, reduction: Reduction = "mean"
) -> Tensor:
    """The mean over k-space of (|F x| - |F t|)^2, F the orthonormal Fourier transform, at the scale of the target.

    Phases in k-space, and so a shift of the image, do not count. At |F x| = 0 the gradient is 0. A term of Yang et
    al., "DAGAN: deep de-aliasing generative adversarial networks for fast compressed sensing MRI", IEEE TMI 2018.
    """
    output, target = at_target_scale(output, target)
    with no_autocast(output):
        # centering moves the samples and turns their phases: the mean over their magnitudes is the same without
        difference = torch.fft.fft2(output, norm="ortho").abs() - torch.fft.fft2(target, norm="ortho").abs()
    return reduce(difference.square().mean(dim=(1, 2, 3)), reduction)


EdgeLoss = loss_module("EdgeLoss", edge_loss)
HFENLoss = loss_module("HFENLoss", hfen_loss)
FrequencyLoss = loss_module("FrequencyLoss", frequency_loss)


def _norm(images: Tensor) -> Tensor:
    """|x|_2 of each image, (batch,); its gradient at 0 is 0."""
    return torch.linalg.vector_norm(channels(images), dim=(1, 2, 3))
