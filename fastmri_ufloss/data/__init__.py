"""From files to batches."""

from typing import TYPE_CHECKING

from fastmri_ufloss.lazy import lazy_names

if TYPE_CHECKING:
    from fastmri_ufloss.data.index import *
    from fastmri_ufloss.data.masks import *
    from fastmri_ufloss.data.patches import *
    from fastmri_ufloss.data.reconstruction_writer import *
    from fastmri_ufloss.data.segmentation import *
    from fastmri_ufloss.data.sens_maps import *
    from fastmri_ufloss.data.slices import *
    from fastmri_ufloss.data.transforms import *

__getattr__, __all__ = lazy_names(
    __name__,
    {
        "index": "MetadataIndex read_split",
        "masks": "MASK_TYPES create_mask_for_mask_type",
        "patches": "PatchDataset",
        "reconstruction_writer": "ReconstructionWriter",
        "segmentation": "SegmentationSample SegmentationSlices",
        "sens_maps": "ScanSlice SensMapCache SensMapFiles SensMapSource UnitSensMaps",
        "slices": "IndexedSliceDataset",
        "transforms": "MoDLDataTransform MoDLSample UnetDataTransform collate",
    },
)
