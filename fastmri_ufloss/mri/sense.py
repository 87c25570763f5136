"""The SENSE encoding operator E = U F S: coil maps S, centered Fourier transform F, sampling U."""

from collections.abc import Callable
from typing import Any

import fastmri
import torch
from torch import Tensor

from fastmri_ufloss.mri.conjugate_gradient import conjugate_gradient

__all__ = [
    "cg_sense",
    "check_mask_and_maps",
    "data_consistency_step",
    "sens_expand",
    "sens_reduce",
    "sense_normal_operator",
]


def _check_real_complex(name: str, data: Tensor) -> None:
    if data.ndim != 5 or data.shape[-1] != 2:
        raise ValueError(f"{name} must have shape (batch, coils, rows, cols, 2), got {tuple(data.shape)}")


def check_mask_and_maps(mask: Tensor, sens_maps: Tensor) -> None:
    """Raise ValueError unless a mask (batch, 1, 1 or rows, cols, 1) goes with maps (batch, coils, rows, cols, 2)."""
    _check_real_complex("sens_maps", sens_maps)
    batch, _, rows, cols, _ = sens_maps.shape
    expected = ((batch, 1), (1,), (1, rows), (cols,), (1,))
    if mask.ndim != 5 or any(n not in ok for n, ok in zip(mask.shape, expected, strict=True)):
        raise ValueError(
            f"mask must have shape (batch, 1, 1 or rows, cols, 1) to go with sens_maps of shape "
            f"{tuple(sens_maps.shape)}, got {tuple(mask.shape)}"
        )


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


class _SenseNormal(torch.autograd.Function):
    """E^H E x for fixed maps. The operator is its own adjoint, so the backward pass is the forward pass
    applied to the gradient, and no coil image is ever kept for it."""

    @staticmethod
    def forward(ctx: Any, image: Tensor, sens_maps: Tensor, mask: Tensor, dims: tuple[int, ...]) -> Tensor:
        ctx.save_for_backward(sens_maps, mask)
        ctx.dims = dims
        return _apply_normal(image, sens_maps, mask, dims)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        sens_maps, mask = ctx.saved_tensors
        return _SenseNormal.apply(grad, sens_maps, mask, ctx.dims), None, None, None


def _apply_normal(image: Tensor, sens_maps: Tensor, mask: Tensor, dims: tuple[int, ...]) -> Tensor:
    coil_kspace = torch.fft.fftn(sens_maps * image.unsqueeze(1), dim=dims)
    coil_images = torch.fft.ifftn(coil_kspace * mask, dim=dims)
    return (sens_maps.conj() * coil_images).sum(dim=1)


def sense_normal_operator(mask: Tensor, sens_maps: Tensor) -> Callable[[Tensor], Tensor]:
    """The normal operator x -> E^H E x of SENSE, as a function of complex images.

    F^H U F is a circular convolution. It therefore commutes with the shifts of the centered transform, which
    are left out here, and along an axis that is not undersampled its two transforms cancel: a mask of columns
    costs one-dimensional transforms only.

    Args:
        mask: (batch, 1, 1 or rows, cols, 1), as in fastMRI.
        sens_maps: (batch, coils, rows, cols, 2).

    Returns:
        A self-adjoint, positive semi-definite map of complex images (batch, rows, cols). Its gradient reaches
        the image, and the maps if they require one; it keeps no coil image for the backward pass otherwise.

    Raises:
        ValueError: if mask and maps do not belong together.
    """
    check_mask_and_maps(mask, sens_maps)
    maps = torch.view_as_complex(sens_maps.contiguous())
    dims = (-1,) if mask.shape[2] == 1 else (-2, -1)
    weights = torch.fft.ifftshift(mask[..., 0].to(sens_maps.dtype), dim=dims)
    if maps.requires_grad:
        return lambda image: _apply_normal(image, maps, weights, dims)
    return lambda image: _SenseNormal.apply(image, maps, weights, dims)


def data_consistency_step(
    image: Tensor, zero_filled: Tensor, normal: Callable[[Tensor], Tensor], *, step: Tensor | float = 1.0
) -> Tensor:
    r"""A gradient step on the misfit of an image, with E and y the encoding and the samples of SENSE.

    .. math:: x - \eta \, E^H (E x - y)

    For one coil with a map of ones, :math:`\eta = 1` replaces the acquired samples of the image's k-space by the
    measured ones, and :math:`\eta < 1` goes that part of the way. For several coils that is done in each coil and
    the coils are combined. Without autocast.

    Args:
        image: x, complex (batch, rows, cols).
        zero_filled: E^H y, the same shape; y is zero where not acquired.
        normal: x -> E^H E x, see `sense_normal_operator`.
        step: eta.

    Returns:
        Complex image (batch, rows, cols).

    Raises:
        ValueError: if the shapes differ.
    """
    if image.shape != zero_filled.shape:
        raise ValueError(
            f"zero_filled must have the shape of image, got {tuple(zero_filled.shape)} and {tuple(image.shape)}"
        )
    with torch.autocast(image.device.type, enabled=False):
        return image - step * (normal(image) - zero_filled)


def cg_sense(
    masked_kspace: Tensor,
    mask: Tensor,
    sens_maps: Tensor,
    *,
    num_iterations: int = 10,
    lam: float = 0.02,
) -> Tensor:
    """CG-SENSE: argmin_x |E x - y|^2 + lam |x|^2 by conjugate gradients from zero (Pruessmann, MRM 2001).

    Args:
        masked_kspace: (batch, coils, rows, cols, 2).
        mask: (batch, 1, 1 or rows, cols, 1).
        sens_maps: (batch, coils, rows, cols, 2).
        num_iterations: the early stop is part of the regularization.
        lam: weight of the Tikhonov term; E^H E has norm 1 where the maps have.

    Returns:
        Complex image (batch, rows, cols).

    Raises:
        ValueError: if the shapes do not belong together.
    """
    normal = sense_normal_operator(mask, sens_maps)
    rhs = torch.view_as_complex(sens_reduce(masked_kspace, sens_maps))[:, 0]
    return conjugate_gradient(lambda x: normal(x) + lam * x, rhs, num_iterations=num_iterations)
