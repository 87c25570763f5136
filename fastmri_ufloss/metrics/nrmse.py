"""The normalised root mean square error of volumes."""

from torch import Tensor

from fastmri_ufloss.metrics.volume_metric import VolumeMetric, energy, to_sum_precision

__all__ = ["NRMSE"]


class NRMSE(VolumeMetric):
    """|x - t| / |t| over each volume, the square root of fastMRI's NMSE; the mean over volumes.

    Of complex images errors of the phase count. The value does not depend on the unit of the images; it is 0 for
    equal images and 1 for an output of zeros. A volume whose target is zero everywhere gives inf, or nan where the
    output is zero as well.
    """

    slice_sums = ("error_energy", "target_energy")

    def slice_values(self, output: Tensor, target: Tensor, max_value: Tensor | None) -> tuple[Tensor, Tensor]:
        output, target = to_sum_precision(output), to_sum_precision(target)
        return energy(output - target), energy(target)

    def volume_value(self, values: Tensor) -> float:
        error, target = values.sum(dim=0)
        return (error / target).sqrt().item()
