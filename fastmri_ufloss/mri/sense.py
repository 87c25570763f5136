"""The SENSE encoding operator E = U F S: coil maps S, centered Fourier transform F, sampling U.

Everywhere k-space y and ``sens_maps`` are (batch, coils, rows, cols, 2), ``mask`` is (batch, 1, 1 or rows, cols, 1),
or one for the whole batch, and complex images are (batch, rows, cols). Other shapes raise ValueError.

Where the object is larger than the field of view, several places of different coil sensitivities lie in one pixel.
Several sets of maps tell them apart: E x = U F sum_m S_m x_m, with ``sens_maps`` (batch, sets, coils, rows, cols, 2)
and complex images (batch, sets, rows, cols), of which `combine_sets` makes one (Uecker et al., MRM 2014).
"""

import functools
from collections.abc import Callable
from typing import Any

import fastmri
import torch
from torch import Tensor

from fastmri_ufloss.mri.conjugate_gradient import Backward, conjugate_gradient

__all__ = [
    "SenseNormalOperator",
    "cg_sense",
    "combine_sets",
    "cut_rows",
    "data_residual",
    "sens_expand",
    "sens_reduce",
    "sense_adjoint",
]

_CPU_BLOCK_BYTES = 2**20  # on a CPU a block of the coil images is worth keeping in cache


def _check_real_complex(name: str, data: Tensor) -> None:
    if data.ndim != 5 or data.shape[-1] != 2:
        raise ValueError(f"{name} must have shape (batch, coils, rows, cols, 2), got {tuple(data.shape)}")


def _check_maps(sens_maps: Tensor) -> None:
    if sens_maps.ndim not in (5, 6) or sens_maps.shape[-1] != 2:
        raise ValueError(
            "sens_maps must have shape (batch, coils, rows, cols, 2), or (batch, sets, coils, rows, cols, 2), "
            f"got {tuple(sens_maps.shape)}"
        )


def _check_kspace_and_maps(name: str, kspace: Tensor, sens_maps: Tensor) -> None:
    _check_real_complex(name, kspace)
    _check_maps(sens_maps)
    expected = sens_maps.shape if sens_maps.ndim == 5 else sens_maps.shape[:1] + sens_maps.shape[2:]
    if kspace.shape != expected:
        raise ValueError(
            f"sens_maps must have the shape of {name}, got {tuple(sens_maps.shape)} and {tuple(kspace.shape)}"
        )


def _check_same_shape(name: str, data: Tensor, other_name: str, other: Tensor) -> None:
    if data.shape != other.shape:
        raise ValueError(
            f"{name} must have the shape of {other_name}, got {tuple(data.shape)} and {tuple(other.shape)}"
        )


def check_mask_and_maps(mask: Tensor, sens_maps: Tensor) -> None:
    """Raise ValueError unless a mask (batch, 1, 1 or rows, cols, 1) goes with maps of one or several sets."""
    _check_maps(sens_maps)
    batch, *_, rows, cols, _ = sens_maps.shape
    expected = ((batch, 1), (1,), (1, rows), (cols,), (1,))
    if mask.ndim != 5 or any(n not in ok for n, ok in zip(mask.shape, expected, strict=True)):
        raise ValueError(
            f"mask must have shape (batch, 1, 1 or rows, cols, 1) to go with sens_maps of shape "
            f"{tuple(sens_maps.shape)}, got {tuple(mask.shape)}"
        )


def _block_size(data: Tensor, dim: int) -> int:
    """How many rows or coils to take at a time."""
    size = data.shape[dim]
    num_bytes = data.numel() * data.element_size()
    if data.device.type != "cpu" or num_bytes <= _CPU_BLOCK_BYTES:
        return size
    return max(1, _CPU_BLOCK_BYTES * size // num_bytes)


def sens_expand(image: Tensor, sens_maps: Tensor) -> Tensor:
    """Image (batch, 1 or sets, rows, cols, 2) to fully sampled k-space F S x (batch, coils, rows, cols, 2)."""
    _check_real_complex("image", image)
    _check_maps(sens_maps)
    images, maps = torch.view_as_complex(image.contiguous()), torch.view_as_complex(sens_maps.contiguous())
    coil_images = images * maps if maps.ndim == 4 else (images.unsqueeze(2) * maps).sum(dim=1)
    return fastmri.fft2c(torch.view_as_real(coil_images))


def sens_reduce(kspace: Tensor, sens_maps: Tensor) -> Tensor:
    """K-space (batch, coils, rows, cols, 2) to image S^H F^H y (batch, 1 or sets, rows, cols, 2), the adjoint."""
    _check_kspace_and_maps("kspace", kspace, sens_maps)
    coils = _block_size(kspace, dim=1)
    blocks = zip(kspace.split(coils, dim=1), sens_maps.split(coils, dim=-4), strict=True)
    image = functools.reduce(torch.add, (_reduce(*block) for block in blocks))
    return torch.view_as_real(image.unsqueeze(1) if sens_maps.ndim == 5 else image)


def _reduce(kspace: Tensor, sens_maps: Tensor) -> Tensor:
    coil_images = torch.view_as_complex(fastmri.ifft2c(kspace))
    maps = torch.view_as_complex(sens_maps.contiguous()).conj()
    return (maps * (coil_images if maps.ndim == 4 else coil_images.unsqueeze(1))).sum(dim=-3)


def sense_adjoint(masked_kspace: Tensor, sens_maps: Tensor) -> Tensor:
    """The zero-filled image E^H y: complex (batch, rows, cols), of several sets of maps (batch, sets, rows, cols)."""
    image = torch.view_as_complex(sens_reduce(masked_kspace, sens_maps))
    return image[:, 0] if sens_maps.ndim == 5 else image


def combine_sets(image: Tensor) -> Tensor:
    """One complex image (batch, rows, cols) of those of several sets of maps, (batch, sets, rows, cols).

    Its magnitude is their root sum of squares, as is usual with BART, its phase that of the first set. An image
    (batch, rows, cols), of a single set, is returned as it is.
    """
    if image.ndim == 3:
        return image
    magnitude = torch.linalg.vector_norm(torch.view_as_real(image), dim=(1, -1))
    return magnitude * torch.where(image[:, 0] == 0, 1, image[:, 0].sgn())


def cut_rows(kspace: Tensor, first: int, count: int) -> Tensor:
    r"""K-space of a band of rows of the image, (..., rows, cols, 2) to (..., count, cols, 2).

    .. math:: y_{band} = F R F^H y

    R cuts ``count`` rows from ``first`` on. A mask of columns commutes with R, so E^H E acts in each row of the image
    by itself: with the maps and the mask cut alike, the band is a scan of its own with the same samples, the same
    white noise and the same images, to rounding. ValueError if the band is not inside.
    """
    rows = kspace.shape[-3]
    if not (first >= 0 and 1 <= count <= rows - first):
        raise ValueError(f"first and count must be a band inside {rows} rows, got {first} and {count}")
    hybrid = torch.fft.ifft(torch.fft.ifftshift(torch.view_as_complex(kspace), dim=-2), dim=-2, norm="ortho")
    # the shift, which centers the image, and the cut in one copy
    order = (torch.arange(first, first + count, device=kspace.device) - rows // 2) % rows
    band = torch.fft.ifftshift(hybrid.index_select(-2, order), dim=-2)
    return torch.view_as_real(torch.fft.fftshift(torch.fft.fft(band, dim=-2, norm="ortho"), dim=-2))


class _SenseNormal(torch.autograd.Function):
    """E^H E x for fixed maps: self-adjoint, so the backward pass is the forward pass and keeps no coil image."""

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
    rows = _block_size(sens_maps, dim=-2)
    if dims == (-1,) and rows < image.shape[-2]:  # no row depends on another
        blocks = zip(image.split(rows, dim=-2), sens_maps.split(rows, dim=-2), strict=True)
        return torch.cat([_apply_normal(*block, mask, dims) for block in blocks], dim=-2)
    coil_images = sens_maps * image.unsqueeze(-3)
    if sens_maps.ndim == 5:  # several sets
        coil_images = coil_images.sum(dim=1)
    coil_images = torch.fft.ifftn(torch.fft.fftn(coil_images, dim=dims).mul_(mask), dim=dims)
    if sens_maps.ndim == 5:
        return (sens_maps.conj() * coil_images.unsqueeze(1)).sum(dim=-3)
    return coil_images.mul_(sens_maps.conj()).sum(dim=-3)


class SenseNormalOperator:
    """The normal operator x -> E^H E x of SENSE on complex images, self-adjoint and positive semi-definite.

    The gradient reaches the image, and the maps if they require one.
    """

    def __init__(self, mask: Tensor, sens_maps: Tensor) -> None:
        check_mask_and_maps(mask, sens_maps)
        # F^H U F is a circular convolution, which commutes with the shifts of the centered transform: they are left
        # out. Along an axis that is not undersampled the two transforms cancel: columns cost 1D transforms only.
        self.dims: tuple[int, ...] = (-1,) if mask.shape[2] == 1 else (-2, -1)
        self.maps = torch.view_as_complex(sens_maps.contiguous())
        self.weights = torch.fft.ifftshift(mask[..., 0].to(self.maps.dtype), dim=self.dims)

    def __call__(self, image: Tensor) -> Tensor:
        """E^H E x of an image (batch, rows, cols) or (batch, sets, rows, cols)."""
        apply = _apply_normal if self.maps.requires_grad else _SenseNormal.apply
        return apply(image, self.maps, self.weights, self.dims)

    def solve(
        self,
        rhs: Tensor,
        lam: Tensor | float,
        *,
        x0: Tensor | None = None,
        num_iterations: int = 6,
        backward: Backward = "unrolled",
    ) -> Tensor:
        """x of (E^H E + lam I) x = rhs, see `conjugate_gradient`.

        With a mask of columns each row of the image is a system of its own, so that the rows of a band are those of
        the whole slice after any number of steps.
        """
        weight = lam.real.to(rhs.real.dtype) if isinstance(lam, Tensor) else rhs.real.new_full((), lam)
        weight = weight.unsqueeze(-1)  # for real and imaginary parts

        def operator(x: Tensor) -> Tensor:
            return torch.view_as_complex(torch.addcmul(torch.view_as_real(self(x)), weight, torch.view_as_real(x)))

        return conjugate_gradient(
            operator,
            rhs,
            x0=x0,
            num_iterations=num_iterations,
            backward=backward,
            dims=(1, *self.dims) if rhs.ndim == 4 else self.dims,
        )


def data_consistency_step(
    image: Tensor, zero_filled: Tensor, normal: Callable[[Tensor], Tensor], *, step: Tensor | float = 1.0
) -> Tensor:
    r"""A gradient step on the misfit of an image, with E and y the encoding and the samples of SENSE.

    .. math:: x - \eta \, E^H (E x - y)

    For one coil with a map of ones, :math:`\eta = 1` replaces the acquired samples of the image's k-space by the
    measured samples. Without autocast.

    Args:
        image: x, complex (batch, rows, cols).
        zero_filled: E^H y, the same shape.
        normal: x -> E^H E x, see `SenseNormalOperator`.
        step: eta.
    """
    _check_same_shape("zero_filled", zero_filled, "image", image)
    with torch.autocast(image.device.type, enabled=False):
        return image - step * (normal(image) - zero_filled)


def cg_sense(
    masked_kspace: Tensor, mask: Tensor, sens_maps: Tensor, *, num_iterations: int = 8, lam: float = 0.001
) -> Tensor:
    """CG-SENSE: argmin_x |E x - y|^2 + lam |x|^2 by conjugate gradients from zero (Pruessmann, MRM 2001).

    The result is a complex image (batch, rows, cols), or (batch, sets, rows, cols). The early stop is part of the
    regularization, and E^H E has norm 1 where the maps have. The defaults are for scans of usual noise: on real and
    simulated ones at 2 to 5 times their error was 1% above that of the best values on average, at most 4%. Where
    noise dominates, fewer iterations or a larger lam are better and darken the image: at 4 times and a
    signal-to-noise ratio of 10 the error was smaller by a sixth with 5 iterations and by a fifth with a lam of 0.02.
    """
    normal = SenseNormalOperator(mask, sens_maps)
    return normal.solve(sense_adjoint(masked_kspace, sens_maps), lam, num_iterations=num_iterations)


@torch.no_grad()
def data_residual(image: Tensor, masked_kspace: Tensor, mask: Tensor, sens_maps: Tensor) -> Tensor:
    r"""The part of the acquired samples that an image does not explain, a quality figure without a reference.

    .. math:: r = \| U (F S x - y) \|_2 / \| U y \|_2

    0 for an image that agrees with every sample, 1 for an empty image. The residual counts the noise of the samples
    and the error of the maps too, and says nothing about what was not sampled. Float32 inside, also under autocast.

    Args:
        image: complex (batch, rows, cols), or (batch, sets, rows, cols) that are not combined, with its phase, in the
            unit of the k-space; a magnitude raises ValueError.
        mask: not zero where a sample was acquired.

    Returns:
        (batch,), float32, at least 0, without gradient. 0 where every acquired sample is zero or there is none.
    """
    if not image.is_complex():
        raise ValueError(f"image must be complex, got {image.dtype}: a magnitude has lost the phase of the samples")
    check_mask_and_maps(mask, sens_maps)
    if image.shape != sens_maps.shape[:-4] + sens_maps.shape[-3:-1]:
        layout = "(batch, rows, cols)" if sens_maps.ndim == 5 else "(batch, sets, rows, cols)"
        raise ValueError(
            f"image must have shape {layout} to go with sens_maps of shape {tuple(sens_maps.shape)}, "
            f"got {tuple(image.shape)}"
        )
    _check_kspace_and_maps("masked_kspace", masked_kspace, sens_maps)
    with torch.autocast(image.device.type, enabled=False):
        images = torch.view_as_real(image.to(torch.complex64))
        samples = sens_expand(images if sens_maps.ndim == 6 else images.unsqueeze(1), sens_maps.float())
        sampled, measured = mask != 0, masked_kspace.float()
        error = torch.where(sampled, samples - measured, 0).flatten(1).norm(dim=1)
        norm = torch.where(sampled, measured, 0).flatten(1).norm(dim=1)
    return torch.where(norm > 0, error / norm, 0)
