"""The SENSE encoding operator E = U F S: coil maps S, centred Fourier transform F, sampling U."""

import fastmri
import torch
from torch import Tensor

__all__ = ["sens_expand", "sens_reduce"]


def _check_real_complex(name: str, data: Tensor) -> None:
    if data.ndim != 5 or data.shape[-1] != 2:
        raise ValueError(f"{name} must have shape (batch, coils, rows, cols, 2), got {tuple(data.shape)}")


def sens_expand(image: Tensor, sens_maps: Tensor) -> Tensor:
    """Image to multi-coil k-space, F S x, as in ``fastmri.models.VarNetBlock``.

    Args:
        image: (batch, 1, rows, cols, 2).
        sens_maps: (batch, coils, rows, cols, 2).

    Returns:
        k-space (batch, coils, rows, cols, 2), fully sampled.

    Raises:
        ValueError: if a shape is not as above.
    """
    _check_real_complex("image", image)
    _check_real_complex("sens_maps", sens_maps)
    coil_images = torch.view_as_complex(image.contiguous()) * torch.view_as_complex(sens_maps.contiguous())
    return fastmri.fft2c(torch.view_as_real(coil_images))


def sens_reduce(kspace: Tensor, sens_maps: Tensor) -> Tensor:
    """Multi-coil k-space to image, S^H F^H y, the adjoint of `sens_expand`.

    Args:
        kspace: (batch, coils, rows, cols, 2).
        sens_maps: the same shape.

    Returns:
        Image (batch, 1, rows, cols, 2).

    Raises:
        ValueError: if the two shapes differ.
    """
    _check_real_complex("kspace", kspace)
    if kspace.shape != sens_maps.shape:
        raise ValueError(
            f"sens_maps must have the shape of kspace, got {tuple(sens_maps.shape)} and {tuple(kspace.shape)}"
        )
    coil_images = torch.view_as_complex(fastmri.ifft2c(kspace))
    image = (torch.view_as_complex(sens_maps.contiguous()).conj() * coil_images).sum(dim=1, keepdim=True)
    return torch.view_as_real(image)
