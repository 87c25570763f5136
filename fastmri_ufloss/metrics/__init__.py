"""Metrics of volumes."""

from fastmri_ufloss.metrics.volumes import VolumeScores, mean_scores, score_volume

__all__ = ["VolumeScores", "mean_scores", "score_volume"]
