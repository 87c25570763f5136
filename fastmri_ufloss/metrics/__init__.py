"""Scores of volumes: of arrays and files, and as torchmetrics for a Lightning module."""

from typing import TYPE_CHECKING

from fastmri_ufloss.lazy import lazy_names

if TYPE_CHECKING:
    from fastmri_ufloss.metrics.image_metrics import *
    from fastmri_ufloss.metrics.semantic_interpretability import *
    from fastmri_ufloss.metrics.volume_metric import *
    from fastmri_ufloss.metrics.volumes import *

__getattr__, __all__ = lazy_names(
    __name__,
    {
        "image_metrics": "DSSIM GMSD HFEN METRIC_NAMES NRMSE VSI HaarPSI RelativeError UFLossMetric make_metrics",
        "semantic_interpretability": "SegmentedImages SemanticInterpretability",
        "volume_metric": "VolumeMetric volume_id",
        "volumes": "ReferenceVolume mean_scores score_run sharpness",
    },
)
