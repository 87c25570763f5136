"""The high-frequency error norm of volumes."""

from torch import Tensor

from fastmri_ufloss.losses.fine_structure import laplacian_of_gaussian
from fastmri_ufloss.metrics.volume_metric import VolumeMetric, energy, to_sum_precision

__all__ = ["HFEN"]


class HFEN(VolumeMetric):
    """|LoG(x - t)| / |LoG(t)| over each volume, slice by slice filtered; the mean over volumes.

    LoG is `fastmri_ufloss.losses.fine_structure.laplacian_of_gaussian`. Complex images are filtered as they are, so
    errors of the phase count. The value does not depend on the unit of the images; it is 0 for equal images and 1 for
    an output of zeros. A volume whose target is zero everywhere gives inf, or nan where the output is zero as well.
    (Ravishankar and Bresler, IEEE TMI 2011, do not divide.)
    """

    slice_sums = ("fine_error_energy", "fine_target_energy")

    def slice_values(self, output: Tensor, target: Tensor, max_value: Tensor | None) -> tuple[Tensor, Tensor]:
        output, target = to_sum_precision(output), to_sum_precision(target)
        return energy(laplacian_of_gaussian(output - target)), energy(laplacian_of_gaussian(target))

    def volume_value(self, values: Tensor) -> float:
        error, target = values.sum(dim=0)
        return (error / target).sqrt().item()
