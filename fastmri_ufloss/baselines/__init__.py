"""Classical reconstructions, without a trained network."""

from fastmri_ufloss.baselines.bart_pics import bart_pics, has_bart
from fastmri_ufloss.baselines.dlmri import dlmri
from fastmri_ufloss.baselines.methods import CLASSICAL_METHODS, ClassicalMethod, check_weights
from fastmri_ufloss.baselines.pics import pics
from fastmri_ufloss.baselines.search import SearchedWeight, evenly_spaced, search_weight

__all__ = [
    "CLASSICAL_METHODS",
    "ClassicalMethod",
    "SearchedWeight",
    "bart_pics",
    "check_weights",
    "dlmri",
    "evenly_spaced",
    "has_bart",
    "pics",
    "search_weight",
]
