"""The structural dissimilarity of slices."""

from torch import Tensor

from fastmri_ufloss.losses.ssim import dssim_loss
from fastmri_ufloss.metrics.volume_metric import VolumeMetric, to_sum_precision

__all__ = ["DSSIM"]


class DSSIM(VolumeMetric):
    """1 - SSIM of each slice, the mean over the slices of each volume, and the mean over volumes.

    SSIM is that of `fastmri_ufloss.losses.ssim.dssim_loss`, with Gaussian windows, of the magnitudes; the data
    range is the volume's ``max_value``, which `update` needs here, positive. fastMRI's SSIM has other windows. The
    value lies in 0 .. 2, is 0 for equal images, and does not depend on the unit of images and ``max_value``.
    """

    slice_sums = ("dssim",)

    def slice_values(self, output: Tensor, target: Tensor, max_value: Tensor | None) -> tuple[Tensor]:
        if max_value is None:
            raise ValueError(
                "DSSIM needs max_value, the largest intensity of each slice's volume: a tensor (batch,), such as "
                "fastMRI's batch.max_value, got None"
            )
        return (dssim_loss(to_sum_precision(output), to_sum_precision(target), max_value, reduction="none"),)

    def volume_value(self, values: Tensor) -> float:
        return values.mean().item()
