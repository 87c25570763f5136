"""How far an image is from the samples that were acquired: a quality figure that needs no reference."""

import torch
from torch import Tensor

from fastmri_ufloss.mri.sense import check_mask_and_maps, sens_expand

__all__ = ["data_residual"]


@torch.no_grad()
def data_residual(image: Tensor, masked_kspace: Tensor, mask: Tensor, sens_maps: Tensor) -> Tensor:
    r"""The part of the acquired samples that an image does not explain.

    .. math:: r = \| U (F S x - y) \|_2 / \| U y \|_2

    0 for an image that agrees with every sample, 1 for an empty image. It counts the noise of the samples and
    the error of the maps too, so that the right image does not have 0; much more than other reconstructions of
    the same scan have means that something measured was lost or altered. It says nothing about what was not
    sampled. Float32 inside, also under autocast.

    Args:
        image: complex (batch, rows, cols), with its phase, in the unit of the k-space.
        masked_kspace: (batch, coils, rows, cols, 2).
        mask: (batch, 1, 1 or rows, cols, 1), or one for the whole batch; not zero where a sample was acquired.
        sens_maps: (batch, coils, rows, cols, 2).

    Returns:
        (batch,), float32, at least 0, without gradient. 0 where every acquired sample is zero or there is none.

    Raises:
        ValueError: if the image is not complex or the shapes do not belong together.
    """
    _check(image, masked_kspace, mask, sens_maps)
    with torch.autocast(image.device.type, enabled=False):
        samples = sens_expand(torch.view_as_real(image.to(torch.complex64)).unsqueeze(1), sens_maps.float())
        sampled, measured = mask != 0, masked_kspace.float()
        error = torch.where(sampled, samples - measured, 0).flatten(1).norm(dim=1)
        norm = torch.where(sampled, measured, 0).flatten(1).norm(dim=1)
    return torch.where(norm > 0, error / norm, 0)


def _check(image: Tensor, masked_kspace: Tensor, mask: Tensor, sens_maps: Tensor) -> None:
    if not image.is_complex():
        raise ValueError(f"image must be complex, got {image.dtype}: a magnitude has lost the phase of the samples")
    check_mask_and_maps(mask, sens_maps)
    if image.shape != sens_maps.shape[:1] + sens_maps.shape[2:4]:
        raise ValueError(
            f"image must have shape (batch, rows, cols) to go with sens_maps of shape {tuple(sens_maps.shape)}, "
            f"got {tuple(image.shape)}"
        )
    if masked_kspace.shape != sens_maps.shape:
        raise ValueError(
            f"sens_maps must have the shape of masked_kspace, got {tuple(sens_maps.shape)} and "
            f"{tuple(masked_kspace.shape)}"
        )
