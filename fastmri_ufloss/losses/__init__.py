"""Losses, each called ``loss(output, target, data_range)`` with images (batch, 1, rows, cols)."""

from typing import TYPE_CHECKING

from fastmri_ufloss.lazy import lazy_names

if TYPE_CHECKING:
    from fastmri_ufloss.losses.adversarial import *
    from fastmri_ufloss.losses.fine_structure import *
    from fastmri_ufloss.losses.images import *
    from fastmri_ufloss.losses.perceptual import *
    from fastmri_ufloss.losses.reader_scores import *
    from fastmri_ufloss.losses.ssim import *
    from fastmri_ufloss.losses.ufloss import *
    from fastmri_ufloss.losses.weighted import *

__getattr__, __all__ = lazy_names(
    __name__,
    {
        "adversarial": "discriminator_loss feature_matching_loss generator_loss",
        "fine_structure": "EdgeLoss FrequencyLoss HFENLoss edge_loss frequency_loss hfen_loss",
        "images": "L1Loss L2Loss NMSELoss l1_loss l2_loss nmse_loss",
        "perceptual": "PerceptualLoss perceptual_loss",
        "reader_scores": "HaarPSILoss haarpsi_loss reader_score",
        "ssim": "DSSIMLoss MSSSIMLoss SSIMLoss dssim_loss ms_ssim_loss ssim_loss",
        "ufloss": "UFLoss ufloss_per_image",
        "weighted": "LOSS_NAMES AutoWeight LinearRamp WeightedLoss make_loss parse_weights",
    },
)
