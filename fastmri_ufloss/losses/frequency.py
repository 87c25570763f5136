"""frequency: the difference of the magnitudes in k-space."""

import torch
from torch import Tensor, nn

from fastmri_ufloss.losses.images import Reduction, at_target_scale, full_precision, reduce

__all__ = ["FrequencyLoss", "frequency_loss"]


def frequency_loss(
    output: Tensor, target: Tensor, data_range: Tensor | float | None = None, *, reduction: Reduction = "mean"
) -> Tensor:
    """The mean over k-space of (|F x| - |F t|)^2, F the orthonormal Fourier transform, at the scale of the target.

    Phases in k-space do not count, and so neither does a shift of the image. At |F x| = 0 the gradient is 0.

    Args:
        output: x, (batch, 1, rows, cols), real magnitude or complex.
        target: t, the same shape and kind.
        data_range: not used; see `fastmri_ufloss.mri.intensity.image_scale` for the scale.
        reduction: see `fastmri_ufloss.losses.images.Reduction`.

    Returns:
        Scalar or (batch,), >= 0, 0 for equal images.

    Raises:
        ValueError: if shapes or kinds differ.

    A term of Yang et al., "DAGAN: deep de-aliasing generative adversarial networks for fast compressed sensing MRI
    reconstruction", IEEE TMI 2018.
    """
    output, target = at_target_scale(output, target)
    with full_precision(output):
        # centring moves the samples and turns their phases: the mean over their magnitudes is the same without
        difference = torch.fft.fft2(output, norm="ortho").abs() - torch.fft.fft2(target, norm="ortho").abs()
    return reduce(difference.square().mean(dim=(1, 2, 3)), reduction)


class FrequencyLoss(nn.Module):
    """`frequency_loss` as a module."""

    def forward(self, output: Tensor, target: Tensor, data_range: Tensor | float | None = None) -> Tensor:
        return frequency_loss(output, target)
