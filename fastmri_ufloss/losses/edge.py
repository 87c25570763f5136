"""edge: the difference of Sobel maps."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fastmri_ufloss.losses.images import Reduction, at_target_scale, magnitude, reduce

__all__ = ["EdgeLoss", "edge_loss", "sobel_magnitude"]


def sobel_magnitude(images: Tensor) -> Tensor:
    """sqrt((gx^2 + gy^2) / 2) of the magnitudes, with Sobel's derivatives gx, gy, as ``skimage.filters.sobel``.

    gx is the filter [1, 2, 1]/4 down the columns and [-1, 0, 1] along the rows, gy the other way round. The pixels
    of the border are repeated outwards, which for 3x3 filters is scipy's ``mode="reflect"``.

    Args:
        images: (batch, 1, rows, cols), real magnitude, or complex, of which the magnitude is taken.

    Returns:
        The same shape, real, at least float32, >= 0.

    Raises:
        ValueError: if images has another shape.
    """
    if images.ndim != 4 or images.shape[1] != 1 or images.numel() == 0:
        raise ValueError(f"images must have shape (batch, 1, rows, cols), got {tuple(images.shape)}")
    # slices rather than a convolution: exact whatever autocast and TF32 make of convolutions
    padded = F.pad(magnitude(images), (1, 1, 1, 1), mode="replicate")
    along = padded[..., :, 2:] - padded[..., :, :-2]
    down = padded[..., 2:, :] - padded[..., :-2, :]
    gx = (along[..., :-2, :] + 2 * along[..., 1:-1, :] + along[..., 2:, :]) / 4
    gy = (down[..., :, :-2] + 2 * down[..., :, 1:-1] + down[..., :, 2:]) / 4
    # abs of a complex number, because its gradient at 0 is 0; that of a square root is NaN
    return torch.complex(gx, gy).abs() / 2**0.5


def edge_loss(
    output: Tensor, target: Tensor, data_range: Tensor | float | None = None, *, reduction: Reduction = "mean"
) -> Tensor:
    """The mean over pixels of (G(x) - G(t))^2, G = `sobel_magnitude`, each image divided by the scale of its target.

    An outlook of Pawar et al., ISMRM 2019: a difference of Sobel maps as a regulariser beside l2.

    Args:
        output: x, (batch, 1, rows, cols), real magnitude, or complex, of which the magnitude is taken.
        target: t, the same shape and kind.
        data_range: not used; see `fastmri_ufloss.mri.intensity.image_scale` for the scale.
        reduction: see `fastmri_ufloss.losses.images.Reduction`.

    Returns:
        Scalar or (batch,), >= 0, 0 for equal images.

    Raises:
        ValueError: if shapes or kinds differ.
    """
    output, target = at_target_scale(output, target)
    difference = sobel_magnitude(output) - sobel_magnitude(target)
    return reduce(difference.square().mean(dim=(1, 2, 3)), reduction)


class EdgeLoss(nn.Module):
    """`edge_loss` as a module."""

    def forward(self, output: Tensor, target: Tensor, data_range: Tensor | float | None = None) -> Tensor:
        return edge_loss(output, target)
