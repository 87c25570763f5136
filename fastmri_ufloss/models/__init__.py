"""Networks: fastMRI's own, and the plugin's next to them."""

from typing import TYPE_CHECKING

from fastmri_ufloss.lazy import lazy_names

if TYPE_CHECKING:
    from fastmri_ufloss.models.checkpoints import *
    from fastmri_ufloss.models.feature_net import *
    from fastmri_ufloss.models.modl import *
    from fastmri_ufloss.models.recnet import *
    from fastmri_ufloss.models.refinement import *
    from fastmri_ufloss.models.segmentation import *
    from fastmri_ufloss.models.unet import *
    from fastmri_ufloss.models.vgg import *

__getattr__, __all__ = lazy_names(
    __name__,
    {
        "checkpoints": "read_checkpoint",
        "feature_net": "PRETRAINED PatchFeatureNet load_ufloss_checkpoint pretrained_feature_net",
        "modl": "CnnDenoiser MoDL ResNetDenoiser UnetDenoiser",
        "recnet": "RecNet",
        "refinement": "DiscriminatorOutput PatchDiscriminator RefinementNet RefinementUnet",
        "segmentation": "SegmentationNet Segmenter load_segmenter",
        "unet": "DeepUnet NormUnet Unet VarNet",
        "vgg": "VGGFeatures load_vgg_features",
    },
)
