"""nmse: the squared difference by the energy of the target."""

import torch
from torch import Tensor, nn

from fastmri_ufloss.losses.images import Reduction, at_target_scale, channels, reduce

__all__ = ["NMSELoss", "nmse_loss"]


def nmse_loss(
    output: Tensor, target: Tensor, data_range: Tensor | float | None = None, *, reduction: Reduction = "mean"
) -> Tensor:
    """|x - t|^2 / |t|^2 of each image; fastMRI's NMSE is the same of a volume.

    Where the target is zero everywhere, the number of pixels takes the place of its energy.

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
    error = channels(output - target).square().sum(dim=(1, 2, 3))
    energy = channels(target).square().sum(dim=(1, 2, 3))
    return reduce(error / torch.where(energy == 0, float(target[0].numel()), energy), reduction)


class NMSELoss(nn.Module):
    """`nmse_loss` as a module."""

    def forward(self, output: Tensor, target: Tensor, data_range: Tensor | float | None = None) -> Tensor:
        return nmse_loss(output, target)
