"""Losses by name."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from fastmri_ufloss.losses.dssim import DSSIMLoss
from fastmri_ufloss.losses.edge import EdgeLoss
from fastmri_ufloss.losses.frequency import FrequencyLoss
from fastmri_ufloss.losses.hfen import HFENLoss
from fastmri_ufloss.losses.l1 import L1Loss
from fastmri_ufloss.losses.l2 import L2Loss
from fastmri_ufloss.losses.ms_ssim import MSSSIMLoss
from fastmri_ufloss.losses.nmse import NMSELoss
from fastmri_ufloss.losses.perceptual import PerceptualLoss
from fastmri_ufloss.losses.ssim import SSIMLoss
from fastmri_ufloss.losses.ufloss import UFLoss
from fastmri_ufloss.losses.weighted import Weight, WeightedLoss

__all__ = ["LOSS_NAMES", "make_loss"]

_LOSSES: dict[str, type[nn.Module]] = {
    "l1": L1Loss,
    "l2": L2Loss,
    "nmse": NMSELoss,
    "ssim": SSIMLoss,
    "dssim": DSSIMLoss,
    "ms_ssim": MSSSIMLoss,
    "edge": EdgeLoss,
    "hfen": HFENLoss,
    "frequency": FrequencyLoss,
    "perceptual": PerceptualLoss,
    "ufloss": UFLoss,
}
LOSS_NAMES = tuple(_LOSSES)


def make_loss(
    weights: Mapping[str, Weight],
    *,
    feature_net: nn.Module | None = None,
    vgg: nn.Module | None = None,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    normalize: bool = False,
    grad_norms_every: int | None = None,
) -> WeightedLoss:
    """The weighted sum of losses known by name.

        make_loss({"l1": 1.0, "ufloss": LinearRamp(0.0, 0.1, 2, 10)}, feature_net=net)

    Args:
        weights: of the losses, by names out of ``LOSS_NAMES``.
        feature_net: the network of ``ufloss``, a trained `fastmri_ufloss.models.PatchFeatureNet`.
        vgg: the network of ``perceptual``, see `fastmri_ufloss.models.load_vgg_features`.
        settings: further arguments of the losses by their names, such as ``{"ufloss": {"stride": 10}}``.
        normalize, grad_norms_every: see `WeightedLoss`.

    Returns:
        The loss.

    Raises:
        ValueError: if a name is not known, a loss lacks its network, or `WeightedLoss` refuses.
    """
    settings = settings or {}
    networks = {"ufloss": feature_net, "perceptual": vgg}
    needs = {
        "ufloss": "feature_net, a trained PatchFeatureNet",
        "perceptual": "vgg, the features of a VGG: fastmri_ufloss.models.load_vgg_features",
    }
    terms: dict[str, nn.Module] = {}
    for name in (*weights, *settings):
        if name not in _LOSSES:
            raise ValueError(f"unknown loss {name!r}, known are {', '.join(LOSS_NAMES)}")
        if name not in weights:
            raise ValueError(f"settings are for {name!r}, which has no weight: the losses are {', '.join(weights)}")
    for name in weights:
        if name not in needs:
            terms[name] = _LOSSES[name](**settings.get(name, {}))
        elif networks[name] is None:
            raise ValueError(f"loss {name!r} needs {needs[name]}")
        else:
            terms[name] = _LOSSES[name](networks[name], **settings.get(name, {}))
    return WeightedLoss(terms, weights, normalize=normalize, grad_norms_every=grad_norms_every)
