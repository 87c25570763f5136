"""Metrics of volumes: of arrays, and as torchmetrics for a Lightning module."""

from fastmri_ufloss.metrics.dssim import DSSIM
from fastmri_ufloss.metrics.hfen import HFEN
from fastmri_ufloss.metrics.named import METRIC_NAMES, make_metrics
from fastmri_ufloss.metrics.nrmse import NRMSE
from fastmri_ufloss.metrics.relative_error import RelativeError
from fastmri_ufloss.metrics.semantic_interpretability import SemanticInterpretability
from fastmri_ufloss.metrics.ufloss import UFLossMetric
from fastmri_ufloss.metrics.volume_metric import VolumeMetric, volume_id
from fastmri_ufloss.metrics.volumes import VolumeScores, mean_scores, score_volume

__all__ = [
    "DSSIM",
    "HFEN",
    "METRIC_NAMES",
    "NRMSE",
    "RelativeError",
    "SemanticInterpretability",
    "UFLossMetric",
    "VolumeMetric",
    "VolumeScores",
    "make_metrics",
    "mean_scores",
    "score_volume",
    "volume_id",
]
