"""What degrades an image on purpose, to see what a loss makes of it: noise, and the loss of high frequencies."""

import torch
from torch import Tensor

from fastmri_ufloss.mri.intensity import image_scale

__all__ = ["blurred", "noisy"]


def noisy(images: Tensor, share: float, *, seed: int = 0) -> Tensor:
    """Images with complex white noise: (1 - b) x + b s n, and the magnitude of it for magnitudes.

    n has unit variance, and s is `image_scale` of each image, so that the paper's image is meant, whose 95th
    percentile is 1. The noise depends on seed and shape only: it is the same at each level.

    Args:
        images: x, (batch, ..., rows, cols), complex, or real magnitudes.
        share: b, from 0 to 1.
        seed: of the noise.

    Returns:
        The shape, kind and precision of images.

    Raises:
        ValueError: if share is out of its range, or images is not as above.

    Wang et al., "High fidelity deep learning-based MRI reconstruction with instance-wise discriminative feature
    matching loss", MRM 2022, eq. 13.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"share must be from 0 to 1, got {share}")
    waves = _complex(images)
    scale = image_scale(images).reshape(-1, *[1] * (images.ndim - 1))
    noise = torch.randn(images.shape, dtype=waves.dtype, generator=torch.Generator().manual_seed(seed))
    return _like(images, (1 - share) * waves + share * noise.to(images.device) * scale)


def blurred(images: Tensor, factor: float) -> Tensor:
    """Images from the central 1 / factor of k-space in both directions; the rest is 0. Of magnitudes the magnitude.

    Args:
        images: (batch, ..., rows, cols), complex, or real magnitudes.
        factor: R, at least 1, which gives the images themselves.

    Returns:
        The shape, kind and precision of images.

    Raises:
        ValueError: if factor is below 1, or images is not as above.

    Wang et al., MRM 2022, figure 4.
    """
    if not factor >= 1:
        raise ValueError(f"factor must be at least 1, got {factor}")
    waves = _complex(images)
    if factor == 1:
        return images.clone()
    kspace = torch.fft.fft2(waves)
    for axis in (-2, -1):
        frequency = torch.fft.fftfreq(images.shape[axis], device=images.device).abs()
        keep = frequency <= 0.5 / factor
        kspace = kspace * (keep[:, None] if axis == -2 else keep)
    return _like(images, torch.fft.ifft2(kspace))


def _complex(images: Tensor) -> Tensor:
    if images.ndim < 3 or not (images.is_complex() or images.is_floating_point()):
        raise ValueError(
            f"images must be complex or real with shape (batch, ..., rows, cols), got {images.dtype} "
            f"{tuple(images.shape)}"
        )
    return images if images.is_complex() else torch.complex(images, torch.zeros_like(images))


def _like(images: Tensor, waves: Tensor) -> Tensor:
    return waves if images.is_complex() else waves.abs()
