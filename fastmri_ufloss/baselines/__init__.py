"""Classical reconstructions, without a trained network."""

from typing import TYPE_CHECKING

from fastmri_ufloss.lazy import lazy_names

if TYPE_CHECKING:
    from fastmri_ufloss.baselines.compressed_sensing import *
    from fastmri_ufloss.baselines.dictionary_learning import *
    from fastmri_ufloss.baselines.methods import *
    from fastmri_ufloss.baselines.runs import *

__getattr__, __all__ = lazy_names(
    __name__,
    {
        "dictionary_learning": "dlmri",
        "methods": "CLASSICAL_METHODS ClassicalMethod read_weights",
        "compressed_sensing": "has_bart pics",
        "runs": "check_settings check_split finished_files launcher_rank method_folders note_by_hand "
        "reconstruct_volumes search_weights volume_slices volume_stamps",
    },
)
