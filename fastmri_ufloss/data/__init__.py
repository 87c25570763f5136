"""From files to batches."""

from fastmri_ufloss.data.index import MetadataIndex
from fastmri_ufloss.data.masks import MASK_TYPES, create_mask_for_mask_type
from fastmri_ufloss.data.patches import PatchDataset
from fastmri_ufloss.data.segmentation import SegmentationSample, SegmentationSlices
from fastmri_ufloss.data.sens_maps import SensMapCache, SensMapFiles, SensMapSource, UnitSensMaps
from fastmri_ufloss.data.slices import IndexedSliceDataset
from fastmri_ufloss.data.transforms import MoDLDataTransform, MoDLSample, UnetDataTransform, collate

__all__ = [
    "MASK_TYPES",
    "IndexedSliceDataset",
    "MetadataIndex",
    "MoDLDataTransform",
    "MoDLSample",
    "PatchDataset",
    "SegmentationSample",
    "SegmentationSlices",
    "SensMapCache",
    "SensMapFiles",
    "SensMapSource",
    "UnetDataTransform",
    "UnitSensMaps",
    "collate",
    "create_mask_for_mask_type",
]
