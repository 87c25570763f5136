"""Losses, each called ``loss(output, target, data_range)`` with images (batch, 1, rows, cols)."""

from fastmri_ufloss.losses.adversarial import discriminator_loss, feature_matching_loss, generator_loss
from fastmri_ufloss.losses.dssim import DSSIMLoss, dssim_loss
from fastmri_ufloss.losses.edge import EdgeLoss, edge_loss
from fastmri_ufloss.losses.frequency import FrequencyLoss, frequency_loss
from fastmri_ufloss.losses.hfen import HFENLoss, hfen_loss
from fastmri_ufloss.losses.l1 import L1Loss, l1_loss
from fastmri_ufloss.losses.l2 import L2Loss, l2_loss
from fastmri_ufloss.losses.ms_ssim import MSSSIMLoss, ms_ssim_loss
from fastmri_ufloss.losses.named import LOSS_NAMES, make_loss
from fastmri_ufloss.losses.nmse import NMSELoss, nmse_loss
from fastmri_ufloss.losses.perceptual import PerceptualLoss, perceptual_loss
from fastmri_ufloss.losses.ssim import SSIMLoss, ssim_loss
from fastmri_ufloss.losses.ufloss import UFLoss, ufloss_per_image
from fastmri_ufloss.losses.weighted import LinearRamp, WeightedLoss

__all__ = [
    "LOSS_NAMES",
    "DSSIMLoss",
    "EdgeLoss",
    "FrequencyLoss",
    "HFENLoss",
    "L1Loss",
    "L2Loss",
    "LinearRamp",
    "MSSSIMLoss",
    "NMSELoss",
    "PerceptualLoss",
    "SSIMLoss",
    "UFLoss",
    "WeightedLoss",
    "discriminator_loss",
    "dssim_loss",
    "edge_loss",
    "feature_matching_loss",
    "frequency_loss",
    "generator_loss",
    "hfen_loss",
    "l1_loss",
    "l2_loss",
    "make_loss",
    "ms_ssim_loss",
    "nmse_loss",
    "perceptual_loss",
    "ssim_loss",
    "ufloss_per_image",
]
