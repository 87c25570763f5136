"""One step of an image towards the samples that were acquired."""

import torch
from torch import Tensor

from fastmri_ufloss.mri.conjugate_gradient import Operator

__all__ = ["data_consistency_step"]


def data_consistency_step(
    image: Tensor, zero_filled: Tensor, normal: Operator, *, step: Tensor | float = 1.0
) -> Tensor:
    r"""A gradient step on the misfit of an image, with E and y the encoding and the samples of SENSE.

    .. math:: x - \eta \, E^H (E x - y)

    For one coil with a map of ones, :math:`\eta = 1` replaces the acquired samples of the image's k-space by the
    measured ones, and :math:`\eta < 1` goes that part of the way. For several coils that is done in each coil and
    the coils are combined. Without autocast.

    Args:
        image: x, complex (batch, rows, cols).
        zero_filled: E^H y, the same shape; y is zero where not acquired.
        normal: x -> E^H E x, see `fastmri_ufloss.mri.sense.sense_normal_operator`.
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
