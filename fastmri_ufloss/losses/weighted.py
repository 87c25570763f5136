"""The weighted sum of named losses: what each is by its name, how weights are written, how they follow the epochs."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from importlib import import_module
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from fastmri_ufloss.checks import check, check_at_least_one, require
from fastmri_ufloss.distributed import mean_over_processes
from fastmri_ufloss.mri.intensity import image_scale

__all__ = ["GRAMMAR", "LOSS_NAMES", "LinearRamp", "Weight", "WeightedLoss", "make_loss", "parse_weights"]

_LOSSES = {
    "l1": "L1Loss",
    "l2": "L2Loss",
    "nmse": "NMSELoss",
    "ssim": "SSIMLoss",
    "dssim": "DSSIMLoss",
    "ms_ssim": "MSSSIMLoss",
    "edge": "EdgeLoss",
    "hfen": "HFENLoss",
    "frequency": "FrequencyLoss",
    "perceptual": "PerceptualLoss",
    "ufloss": "UFLoss",
}
LOSS_NAMES = tuple(_LOSSES)

GRAMMAR = (
    "NAME, NAME=WEIGHT, or NAME=FROM:TO@EPOCH-EPOCH for a weight that grows or falls in a line between two epochs"
)
RAMP = re.compile(r"(?P<start>[^:@]+):(?P<end>[^:@]+)@(?P<first>\d+)-(?P<last>\d+)")


class LinearRamp(NamedTuple):
    """A weight that goes in a line from ``start``, up to ``first_epoch``, to ``end``, from ``last_epoch`` on.

    Epochs count from 0. `parse_weights` reads the text of a ramp, ``"FROM:TO@EPOCH-EPOCH"``.
    """

    start: float
    end: float
    first_epoch: int
    last_epoch: int

    def at(self, epoch: float) -> float:
        """The weight in an epoch."""
        if epoch >= self.last_epoch:
            return self.end
        done = max(0, epoch - self.first_epoch) / (self.last_epoch - self.first_epoch)
        return self.start + (self.end - self.start) * done

    def __str__(self) -> str:
        return f"{self.start}:{self.end}@{self.first_epoch}-{self.last_epoch}"


Weight = float | LinearRamp


def parse_weights(items: Iterable[str], *, names: Sequence[str] | None = None) -> dict[str, Weight]:
    """``["l2=1", "ufloss=0:1.5@5-20"]`` as weights by name, see `GRAMMAR`; a name alone has weight 1.

    Raises ValueError for a name that is not in ``names`` or comes twice, or another weight than those.
    """
    weights: dict[str, Weight] = {}
    for item in items:
        name, equals, text = item.partition("=")
        if names is not None and name not in names:
            raise ValueError(f"unknown name {name!r} in {item!r}, known are {', '.join(names)}")
        if name in weights:
            raise ValueError(f"{name!r} is given twice")
        weights[name] = _checked_weight(name, text if equals else "1")
    return weights


def _checked_weight(name: str, weight: Weight | str) -> Weight:
    if isinstance(weight, str):
        ramp = RAMP.fullmatch(weight)
        texts = [weight] if ramp is None else [ramp["start"], ramp["end"]]
        try:
            numbers = [float(text.replace("_", "?")) for text in texts]  # Python's 1_000 is no number here
        except ValueError:
            raise ValueError(
                f"the weight of {name!r} must be a number or FROM:TO@EPOCH-EPOCH, got {weight!r}"
            ) from None
        weight = numbers[0]
        if ramp is not None:
            weight = LinearRamp(numbers[0], numbers[1], int(ramp["first"]), int(ramp["last"]))
    for value in weight[:2] if isinstance(weight, LinearRamp) else (weight,):
        fits = isinstance(value, int | float) and 0 <= value < math.inf
        check(fits, f"the weight of {name!r}", "a number >= 0", value)
    if isinstance(weight, LinearRamp):
        fits, epochs = 0 <= weight.first_epoch < weight.last_epoch, f"{weight.first_epoch}-{weight.last_epoch}"
        require(fits, f"the ramp of {name!r} must begin in epoch 0 or later and end in a later epoch", epochs)
    return weight


class WeightedLoss(nn.Module):
    """sum_i w_i c_i L_i, with L_i(output, target, data_range), or values that the caller has computed.

    The weights w_i are constant, or follow the epoch that `set_epoch` names; in eval mode ramps have their final
    weight. A term whose weight is 0 is computed, and takes no part in the gradient; where a ramp is at 0 in training
    it is left out, to save its time, unless terms are normalized. The factors c_i are 1; with ``normalize`` they are
    1 / L_i of the first training batch, the mean over all processes, and buffers, which a checkpoint holds (Seitzer
    et al., MICCAI 2018).

    After each call ``last_terms`` holds the value L_i of each term, detached; and ``last_grad_norms``, every
    ``grad_norms_every`` training steps, the norm of the gradient of each w_i c_i L_i in the output, times the scale
    of its target, which costs a backward pass of each loss, but not of the network.

    Weights are finite and >= 0, or their text, see `parse_weights`, and give the sum its order; their names that are
    none of the terms are those of values that are handed in at each call. Raises ValueError for another weight, for
    none at all or a term without, or grad_norms_every below 1; in the call, for values of other names, or a term that
    is 0 or not finite in the batch that normalizes.
    """

    def __init__(
        self,
        terms: Mapping[str, nn.Module],
        weights: Mapping[str, Weight | str],
        *,
        normalize: bool = False,
        grad_norms_every: int | None = None,
    ) -> None:
        super().__init__()
        fits = bool(weights) and set(terms) <= set(weights)
        require(fits, f"weights must name the terms {sorted(terms)}", sorted(weights))
        check_at_least_one(grad_norms_every=grad_norms_every)
        self.terms = nn.ModuleDict(terms)
        self.weights = {name: _checked_weight(name, weight) for name, weight in weights.items()}
        self.normalize = normalize
        if normalize:
            for name in weights:  # by name, so that a checkpoint with other terms cannot be mistaken
                self.register_buffer(f"factor_of_{name}", torch.zeros(()))  # 0: there was no training batch yet
        self.grad_norms_every = grad_norms_every
        self.last_terms: dict[str, Tensor] = {}
        self.last_grad_norms: dict[str, Tensor] = {}
        self._has_factors = False
        self._epoch = 0
        self._steps = 0

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch the weights are for, counting from 0."""
        self._epoch = epoch

    @property
    def current_weights(self) -> dict[str, float]:
        """The weight of each term, of this epoch in training and the final one in eval mode."""
        epoch = self._epoch if self.training else math.inf
        return {name: w.at(epoch) if isinstance(w, LinearRamp) else float(w) for name, w in self.weights.items()}

    @property
    def factors(self) -> dict[str, Tensor]:
        """The factor of each term where they are normalized, 0 before the first training batch."""
        return {name: getattr(self, f"factor_of_{name}") for name in self.weights} if self.normalize else {}

    def forward(
        self,
        output: Tensor,
        target: Tensor,
        data_range: Tensor | float | None = None,
        *,
        values: Mapping[str, Tensor] | None = None,
    ) -> Tensor:
        """The sum, a scalar; ``values`` are scalars by the names of the weights that are none of the terms."""
        weights = self.current_weights
        # where all weights are 0 the sum still needs a graph
        counted = [name for name, weight in weights.items() if weight > 0] or list(weights)
        computed, names = dict(values or {}), set(weights) - set(self.terms)
        check(set(computed) == names, "values", f"named {sorted(names)}", sorted(computed))
        ramps = [name for name, weight in self.weights.items() if isinstance(weight, LinearRamp)]
        left_out = set(ramps) - set(counted) if self.training and not self.normalize else set()
        for name, term in self.terms.items():
            if name in left_out:
                continue
            # detached, and not without gradients: a term may compute otherwise where there are none
            computed[name] = term(output if name in counted else output.detach(), target, data_range)
        self.last_terms = {name: computed[name].detach() for name in weights if name in computed}
        is_step = self.training and any(computed[name].requires_grad for name in counted)
        factors = self._make_factors(is_step=is_step)
        weighted = {name: weights[name] * factors.get(name, 1.0) * computed[name] for name in counted}
        if is_step:
            self._note_grad_norms(weighted, output, target)
        return torch.stack(list(weighted.values())).sum()

    def _make_factors(self, *, is_step: bool) -> dict[str, Tensor]:
        """The factor of each term, where terms are normalized; the first training step sets the factors."""
        factors = self.factors
        if factors and is_step and not self._has_factors:
            if not bool(torch.stack(list(factors.values())).all()):
                self._set_factors(factors)
            self._has_factors = True  # not to ask the device again at each step
        return {name: torch.where(factor > 0, factor, 1.0) for name, factor in factors.items()}

    def _set_factors(self, factors: Mapping[str, Tensor]) -> None:
        values = [self.last_terms[name] for name in factors]
        values = [value if value.dtype == torch.float64 else value.float() for value in values]
        means = mean_over_processes(torch.stack(values))
        plain = dict(zip(factors, means.tolist(), strict=True))
        if bad := [name for name, value in plain.items() if not 0 < value < math.inf]:
            raise ValueError(
                f"losses {', '.join(bad)} cannot be normalized by their value in the first batch, {plain}"
            )
        for factor, mean in zip(factors.values(), means, strict=True):
            factor.copy_(1 / mean)

    def _note_grad_norms(self, weighted: Mapping[str, Tensor], output: Tensor, target: Tensor) -> None:
        self.last_grad_norms = {}
        if self.grad_norms_every is not None and self._steps % self.grad_norms_every == 0:
            scale = image_scale(target).reshape(-1, 1, 1, 1)
            for name, value in weighted.items():
                (gradient,) = torch.autograd.grad(value, output, retain_graph=True)
                self.last_grad_norms[name] = torch.linalg.vector_norm(gradient * scale)
        self._steps += 1


def make_loss(
    weights: Mapping[str, Weight | str],
    *,
    feature_net: nn.Module | None = None,
    vgg: nn.Module | None = None,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    normalize: bool = False,
    grad_norms_every: int | None = None,
) -> WeightedLoss:
    """The weighted sum of losses by names out of ``LOSS_NAMES``, with further arguments as settings.

        make_loss({"l1": 1.0, "ufloss": "0:0.1@2-10"}, feature_net=net, settings={"ufloss": {"stride": 10}})

    Raises ValueError if a name is not known, a loss lacks its network, or `WeightedLoss` refuses.
    """
    settings = settings or {}
    networks = {"ufloss": feature_net, "perceptual": vgg}
    needs = {
        "ufloss": "feature_net, a trained PatchFeatureNet",
        "perceptual": "vgg, the features of a VGG: fastmri_ufloss.models.load_vgg_features",
    }
    for name in (*weights, *settings):
        if name not in LOSS_NAMES:
            raise ValueError(f"unknown loss {name!r}, known are {', '.join(LOSS_NAMES)}")
        if name not in weights:
            raise ValueError(f"settings are for {name!r}, which has no weight: the losses are {', '.join(weights)}")
    room = import_module("fastmri_ufloss.losses")  # which loads those that are asked for
    terms: dict[str, nn.Module] = {}
    for name in weights:
        if name in networks and networks[name] is None:
            raise ValueError(f"loss {name!r} needs {needs[name]}")
        network = [networks[name]] if name in networks else []
        terms[name] = getattr(room, _LOSSES[name])(*network, **settings.get(name, {}))
    return WeightedLoss(terms, weights, normalize=normalize, grad_norms_every=grad_norms_every)
