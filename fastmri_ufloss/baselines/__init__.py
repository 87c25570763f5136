"""Classical reconstructions, without a trained network."""

from fastmri_ufloss.baselines.pics import pics

__all__ = ["pics"]
