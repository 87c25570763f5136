"""What every loss demands of its images, and does to them first.

A loss is called ``loss(output, target, data_range, reduction="mean")`` with

    output: x, (batch, 1, rows, cols), real magnitude or complex,
    target: t, the same shape and kind; no gradient flows to it,
    data_range: (batch,), the largest intensity of each image's volume, where the loss needs it; it is not used where
        the images are divided by the scale of the target, see `fastmri_ufloss.mri.intensity.image_scale`,
    reduction: see `Reduction`,

gives a scalar or (batch,), >= 0 and 0 for equal images, and raises ValueError if shapes or kinds differ.
"""

from collections.abc import Callable
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from fastmri_ufloss.mri.intensity import image_scale

__all__ = [
    "FunctionLoss",
    "Reduction",
    "at_target_scale",
    "channels",
    "check_images",
    "full_precision",
    "magnitude",
    "reduce",
]

Reduction = Literal["mean", "none"]
"""``"mean"`` over the batch, a scalar; or ``"none"``, a value for each image, (batch,)."""


class FunctionLoss(nn.Module):
    """A loss function as a module."""

    function: ClassVar[Callable[..., Tensor]]

    def __init_subclass__(cls, *, function: Callable[..., Tensor], **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.function = staticmethod(function)

    def forward(self, output: Tensor, target: Tensor, data_range: Tensor | float | None = None) -> Tensor:
        return type(self).function(output, target, data_range)


def check_images(output: Tensor, target: Tensor) -> None:
    """Raise ValueError unless both are images (batch, 1, rows, cols) of the same shape and kind."""
    if output.ndim != 4 or output.shape[1] != 1 or output.numel() == 0:
        raise ValueError(f"output must have shape (batch, 1, rows, cols), got {tuple(output.shape)}")
    if output.shape != target.shape:
        raise ValueError(f"target must have the shape of output, got {tuple(target.shape)} and {tuple(output.shape)}")
    if output.is_complex() != target.is_complex():
        raise ValueError(
            f"output and target must both be complex or both be magnitudes, got {output.dtype}, {target.dtype}"
        )


def at_target_scale(output: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Both images in at least float32, divided by `image_scale` of the target, which gets no gradient.

    Raises:
        ValueError: as `check_images`.
    """
    check_images(output, target)
    target = target.detach()
    scale = image_scale(target).reshape(-1, 1, 1, 1)
    return _at_least_float32(output) / scale, _at_least_float32(target) / scale


def channels(images: Tensor) -> Tensor:
    """Real images (batch, 2, rows, cols) of complex ones: real and imaginary part; magnitudes as they are."""
    if not images.is_complex():
        return images
    return torch.view_as_real(images.resolve_conj()).squeeze(1).permute(0, 3, 1, 2)


def magnitude(images: Tensor) -> Tensor:
    """Real images in at least float32: the magnitude of complex ones, others as they are."""
    return _at_least_float32(images.abs() if images.is_complex() else images)


def full_precision(images: Tensor) -> torch.autocast:
    """A context without autocast on the device of the images."""
    return torch.autocast(images.device.type, enabled=False)


def reduce(values: Tensor, reduction: Reduction) -> Tensor:
    """The values of the images of a batch, (batch,), as the caller wants them.

    Raises:
        ValueError: if reduction is not one of `Reduction`.
    """
    if reduction not in ("mean", "none"):
        raise ValueError(f"reduction must be 'mean' or 'none', got {reduction!r}")
    return values.mean() if reduction == "mean" else values


def _at_least_float32(images: Tensor) -> Tensor:
    half = images.dtype in (torch.float16, torch.bfloat16) or not (images.is_floating_point() or images.is_complex())
    if images.dtype == torch.complex32:
        return images.to(torch.complex64)
    return images.float() if half else images
