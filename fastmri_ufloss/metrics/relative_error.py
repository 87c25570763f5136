"""The relative error of slices."""

from torch import Tensor

from fastmri_ufloss.metrics.volume_metric import VolumeMetric, energy, to_sum_precision

__all__ = ["RelativeError"]


class RelativeError(VolumeMetric):
    """|x - t| / |t| of each slice, the mean over the slices of each volume, and the mean over volumes.

    Unlike in `NRMSE`, each slice counts the same, however dark. Slices whose target is zero everywhere are left
    out, and so are volumes that have no other. Of complex images errors of the phase count. (Pawar et al.,
    "Enforcing Structural Similarity in Deep Learning MR Image Reconstruction", ISMRM 2019.)
    """

    slice_sums = ("error_energy", "target_energy")

    def slice_values(self, output: Tensor, target: Tensor, max_value: Tensor | None) -> tuple[Tensor, Tensor]:
        output, target = to_sum_precision(output), to_sum_precision(target)
        return energy(output - target), energy(target)

    def volume_value(self, values: Tensor) -> float | None:
        error, target = values[values[:, 1] != 0].unbind(dim=1)
        return (error / target).sqrt().mean().item() if len(target) else None
