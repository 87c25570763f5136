"""The metrics of images against their targets, and how they are made by name."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from fastmri_ufloss.checks import check_at_least_one
from fastmri_ufloss.losses.fine_structure import laplacian_of_gaussian
from fastmri_ufloss.losses.images import FrozenNetworkLoss
from fastmri_ufloss.losses.reader_scores import ReaderScore, reader_score
from fastmri_ufloss.losses.ssim import dssim_loss
from fastmri_ufloss.losses.ufloss import ufloss_per_image
from fastmri_ufloss.metrics.volume_metric import VolumeMetric, sum_dtype

__all__ = [
    *("DSSIM", "GMSD", "HFEN", "METRIC_NAMES", "NRMSE", "VSI", "HaarPSI", "RelativeError", "UFLossMetric"),
    "make_metrics",
]


class NRMSE(VolumeMetric):
    """|x - t| / |t| over each volume, the square root of fastMRI's NMSE; the mean over volumes.

    Errors of the phase count for complex images. An output of zeros has 1; a volume whose target is zero everywhere
    gives inf, or nan where the output is zero as well.
    """

    slice_sums: tuple[str, ...] = ("error_energy", "target_energy")

    def slice_values(self, output: Tensor, target: Tensor, max_value: Tensor | None) -> tuple[Tensor, Tensor]:
        output, target = _in_sum_precision(output), _in_sum_precision(target)
        return _energy(output - target), _energy(target)

    def volume_value(self, values: Tensor) -> float | None:
        error, target = values.sum(dim=0)
        return (error / target).sqrt().item()


class RelativeError(NRMSE):
    """|x - t| / |t| of each slice, the mean over the slices of each volume, and the mean over volumes.

    Slices whose target is zero everywhere are left out, and so are volumes that have no other. (Pawar et al., ISMRM
    2019.)
    """

    def volume_value(self, values: Tensor) -> float | None:
        error, target = values[values[:, 1] != 0].unbind(dim=1)
        return (error / target).sqrt().mean().item() if len(target) else None


class HFEN(NRMSE):
    """|LoG(x - t)| / |LoG(t)| over each volume, slice by slice filtered; the mean over volumes.

    LoG is `fastmri_ufloss.losses.fine_structure.laplacian_of_gaussian`; for zeros see `NRMSE`. (Ravishankar and
    Bresler, IEEE TMI 2011, do not divide.)
    """

    slice_sums = ("fine_error_energy", "fine_target_energy")

    def slice_values(self, output: Tensor, target: Tensor, max_value: Tensor | None) -> tuple[Tensor, Tensor]:
        output, target = _in_sum_precision(output), _in_sum_precision(target)
        return _energy(laplacian_of_gaussian(output - target)), _energy(laplacian_of_gaussian(target))


class DSSIM(VolumeMetric):
    """1 - SSIM of each slice, the mean over the slices of each volume, and the mean over volumes.

    SSIM is that of `fastmri_ufloss.losses.ssim.dssim_loss`, with Gaussian windows, of the magnitudes; the data range
    is the volume's ``max_value``, which `update` needs here, positive. The value lies in 0 .. 2.
    """

    slice_sums = ("dssim",)

    def slice_values(self, output: Tensor, target: Tensor, max_value: Tensor | None) -> tuple[Tensor]:
        if max_value is None:
            raise ValueError(
                "DSSIM needs max_value, the largest intensity of each slice's volume, (batch,), got None"
            )
        return (dssim_loss(_in_sum_precision(output), _in_sum_precision(target), max_value, reduction="none"),)


class HaarPSI(VolumeMetric):
    """HaarPSI of each slice, the mean over the slices of each volume, and the mean over volumes.

    See `fastmri_ufloss.losses.reader_score`; the data range is the volume's ``max_value``, which `update` needs.
    """

    higher_is_better = True
    slice_sums: tuple[str, ...] = ("haarpsi",)
    score: ReaderScore = "haarpsi"

    def slice_values(self, output: Tensor, target: Tensor, max_value: Tensor | None) -> tuple[Tensor]:
        return (reader_score(self.score, output, target, max_value),)


class VSI(HaarPSI):
    """VSI, as `HaarPSI`."""

    slice_sums = ("vsi",)
    score = "vsi"


class GMSD(HaarPSI):
    """GMSD, as `HaarPSI`; less is better."""

    higher_is_better = False
    slice_sums = ("gmsd",)
    score = "gmsd"


class UFLossMetric(FrozenNetworkLoss, VolumeMetric):
    """UFLoss of each slice over the whole grid of patches, the mean over the slices of each volume and over volumes.

    The value, in 0 .. 4, is `fastmri_ufloss.losses.UFLoss` in eval mode. The network, a
    `fastmri_ufloss.models.PatchFeatureNet` of 2 channels for complex images and 1 for magnitudes, is frozen, in eval
    mode, on the device of the metric, and in no state dict.

    Args:
        stride, chunk_size: see `fastmri_ufloss.losses.UFLoss`.

    Raises:
        ValueError: if stride or chunk_size is below 1; in `update`, for images of another kind or too small.
    """

    feature_net: nn.Module
    slice_sums = ("ufloss",)

    def __init__(self, feature_net: nn.Module, *, stride: int | None = None, chunk_size: int = 256) -> None:
        super().__init__("feature_net", feature_net)
        check_at_least_one(stride=stride, chunk_size=chunk_size)
        self.stride = stride
        self.chunk_size = chunk_size

    def slice_values(self, output: Tensor, target: Tensor, max_value: Tensor | None) -> tuple[Tensor]:
        net = self.feature_net.to(self.device).eval()  # whatever its owner did
        return (ufloss_per_image(net, output, target, stride=self.stride, chunk_size=self.chunk_size),)


_METRICS: dict[str, type[VolumeMetric]] = {
    "nrmse": NRMSE,
    "relative_error": RelativeError,
    "dssim": DSSIM,
    "hfen": HFEN,
    "haarpsi": HaarPSI,
    "vsi": VSI,
    "gmsd": GMSD,
}
METRIC_NAMES = (*_METRICS, "ufloss")


def make_metrics(
    names: Sequence[str], *, feature_net: nn.Module | None = None, ufloss: Mapping[str, Any] | None = None
) -> dict[str, VolumeMetric]:
    """New metrics by their names out of ``METRIC_NAMES``, such as a Lightning module keeps in an ``nn.ModuleDict``.

    ``ufloss`` are settings of `UFLossMetric`. An unknown or repeated name, or a lacking network, raises ValueError.
    """
    metrics: dict[str, VolumeMetric] = {}
    for name in names:
        if name not in METRIC_NAMES:
            raise ValueError(f"unknown metric {name!r}, known are {', '.join(METRIC_NAMES)}")
        if name in metrics:
            raise ValueError(f"names must differ, got {name!r} twice")
        if name != "ufloss":
            metrics[name] = _METRICS[name]()
        elif feature_net is None:
            raise ValueError("metric 'ufloss' needs feature_net, a trained PatchFeatureNet")
        else:
            metrics[name] = UFLossMetric(feature_net, **dict(ufloss or {}))
    return metrics


def _in_sum_precision(images: Tensor) -> Tensor:
    """Images in float64 or complex128, on MPS in float32 or complex64."""
    # squares of raw intensities would underflow in half precision; a GPU may round a float32 convolution to 10 bits
    dtype = sum_dtype(images.device)
    return images.to(dtype.to_complex() if images.is_complex() else dtype)


def _energy(images: Tensor) -> Tensor:
    """sum |x|^2 of each image of (batch, 1, rows, cols), (batch,), real."""
    return images.abs().square().sum(dim=(1, 2, 3))
