"""l1: the mean absolute difference."""

from torch import Tensor, nn

from fastmri_ufloss.losses.images import Reduction, at_target_scale, channels, reduce

__all__ = ["L1Loss", "l1_loss"]


def l1_loss(
    output: Tensor, target: Tensor, data_range: Tensor | float | None = None, *, reduction: Reduction = "mean"
) -> Tensor:
    """The mean of |x - t| over pixels and channels, each image divided by the scale of its target.

    Args:
        output: x, (batch, 1, rows, cols), real magnitude, or complex: the mean is over real and imaginary part.
        target: t, the same shape and kind.
        data_range: not used; see `fastmri_ufloss.mri.intensity.image_scale` for the scale.
        reduction: see `fastmri_ufloss.losses.images.Reduction`.

    Returns:
        Scalar or (batch,), >= 0, 0 for equal images.

    Raises:
        ValueError: if shapes or kinds differ.
    """
    output, target = at_target_scale(output, target)
    return reduce(channels(output - target).abs().mean(dim=(1, 2, 3)), reduction)


class L1Loss(nn.Module):
    """`l1_loss` as a module."""

    def forward(self, output: Tensor, target: Tensor, data_range: Tensor | float | None = None) -> Tensor:
        return l1_loss(output, target)
