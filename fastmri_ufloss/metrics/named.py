"""Metrics by name."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from fastmri_ufloss.metrics.dssim import DSSIM
from fastmri_ufloss.metrics.hfen import HFEN
from fastmri_ufloss.metrics.nrmse import NRMSE
from fastmri_ufloss.metrics.relative_error import RelativeError
from fastmri_ufloss.metrics.ufloss import UFLossMetric
from fastmri_ufloss.metrics.volume_metric import VolumeMetric

__all__ = ["METRIC_NAMES", "make_metrics"]

_METRICS: dict[str, type[VolumeMetric]] = {
    "nrmse": NRMSE,
    "relative_error": RelativeError,
    "dssim": DSSIM,
    "hfen": HFEN,
}
METRIC_NAMES = (*_METRICS, "ufloss")


def make_metrics(
    names: Sequence[str],
    *,
    feature_net: nn.Module | None = None,
    ufloss: Mapping[str, Any] | None = None,
) -> dict[str, VolumeMetric]:
    """New metrics known by name, such as a Lightning module keeps in an ``nn.ModuleDict``.

    Args:
        names: out of ``METRIC_NAMES``.
        feature_net: the network of ``ufloss``, a trained `fastmri_ufloss.models.PatchFeatureNet`.
        ufloss: further settings of `UFLossMetric`.

    Returns:
        The metrics by their names, in the same order.

    Raises:
        ValueError: if a name is not known or comes twice, or ``ufloss`` has no network.
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
