"""The weighted sum of named losses."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from fastmri_ufloss.losses.pixel import L1Loss, L2Loss, SSIMLoss
from fastmri_ufloss.losses.ufloss import UFLoss

__all__ = ["LOSS_NAMES", "WeightedLoss", "make_loss"]

_PIXEL_LOSSES: dict[str, type[nn.Module]] = {"l1": L1Loss, "l2": L2Loss, "ssim": SSIMLoss}
LOSS_NAMES = (*_PIXEL_LOSSES, "ufloss")


class WeightedLoss(nn.Module):
    """sum_i w_i L_i(output, target, data_range), with the call of each of its terms.

    After each call ``last_terms`` holds the value of each term, without its weight, detached.

    Args:
        terms: losses by name.
        weights: their weights by the same names, finite and >= 0.

    Raises:
        ValueError: if the names differ, there is none, or a weight is not as above.
    """

    def __init__(self, terms: Mapping[str, nn.Module], weights: Mapping[str, float]) -> None:
        super().__init__()
        if not terms or set(terms) != set(weights):
            raise ValueError(f"weights must name the terms {sorted(terms)}, got {sorted(weights)}")
        for name, weight in weights.items():
            if not (math.isfinite(weight) and weight >= 0):
                raise ValueError(f"the weight of loss {name!r} must be a number >= 0, got {weight}")
        self.terms = nn.ModuleDict(terms)
        self.weights = {name: float(weights[name]) for name in terms}
        self.last_terms: dict[str, Tensor] = {}

    def forward(self, output: Tensor, target: Tensor, data_range: Tensor | None = None) -> Tensor:
        values = {name: term(output, target, data_range) for name, term in self.terms.items()}
        self.last_terms = {name: value.detach() for name, value in values.items()}
        return torch.stack([self.weights[name] * value for name, value in values.items()]).sum()


def make_loss(
    weights: Mapping[str, float],
    *,
    feature_net: nn.Module | None = None,
    ufloss: Mapping[str, Any] | None = None,
) -> WeightedLoss:
    """The weighted sum of losses known by name.

    Args:
        weights: of the losses, by names out of ``LOSS_NAMES``.
        feature_net: the network of ``ufloss``.
        ufloss: further settings of `UFLoss`.

    Returns:
        The loss.

    Raises:
        ValueError: if a name is not known or ``ufloss`` has no network.
    """
    terms: dict[str, nn.Module] = {}
    for name in weights:
        if name in _PIXEL_LOSSES:
            terms[name] = _PIXEL_LOSSES[name]()
        elif name != "ufloss":
            raise ValueError(f"unknown loss {name!r}, known are {', '.join(LOSS_NAMES)}")
        elif feature_net is None:
            raise ValueError("loss 'ufloss' needs feature_net, a trained PatchFeatureNet")
        else:
            terms[name] = UFLoss(feature_net, **dict(ufloss or {}))
    return WeightedLoss(terms, weights)
