"""The weighted sum of named losses: what each is by its name, how weights are written, how they follow the epochs."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from importlib import import_module
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from fastmri_ufloss.checks import check, check_at_least_one, require
from fastmri_ufloss.distributed import mean_over_processes
from fastmri_ufloss.mri.intensity import image_scale

__all__ = [
    *("GRAMMAR", "LOSS_NAMES", "AutoWeight", "LinearRamp", "Weight", "WeightedLoss", "make_loss", "parse_weights"),
]

_LOSSES = {
    "l1": "L1Loss",
    "l2": "L2Loss",
    "nmse": "NMSELoss",
    "ssim": "SSIMLoss",
    "dssim": "DSSIMLoss",
    "ms_ssim": "MSSSIMLoss",
    "haarpsi": "HaarPSILoss",
    "edge": "EdgeLoss",
    "hfen": "HFENLoss",
    "frequency": "FrequencyLoss",
    "perceptual": "PerceptualLoss",
    "ufloss": "UFLoss",
}
LOSS_NAMES = tuple(_LOSSES)

GRAMMAR = (
    "NAME, NAME=WEIGHT, or NAME=FROM:TO@EPOCH-EPOCH for a weight that grows or falls in a line between two epochs; "
    "NAME=auto, NAME=auto:RATIO or NAME=auto:FROM:TO@EPOCH-EPOCH for a weight that sets itself, so that the term's "
    "gradient is RATIO times as long as that of the terms with fixed weights"
)
AUTO = "auto"
AVERAGED_STEPS = 100  # of the norms of gradients that set a weight
_FIXED = "fixed_terms"
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


class AutoWeight(NamedTuple):
    """A weight that gives a term's gradient at the image ``ratio`` times the length of the other terms' gradient.

    `parse_weights` reads ``"auto"``, ``"auto:RATIO"`` and ``"auto:FROM:TO@EPOCH-EPOCH"``. See `WeightedLoss`.
    """

    ratio: float | LinearRamp = 1.0

    def __str__(self) -> str:
        return f"{AUTO}:{self.ratio}"


Weight = float | LinearRamp | AutoWeight


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
    if isinstance(weight, AutoWeight):
        return AutoWeight(_checked_ratio(name, weight.ratio))
    if isinstance(weight, str) and (weight == AUTO or weight.startswith(f"{AUTO}:")):
        return AutoWeight(*(_checked_ratio(name, text) for text in [weight.removeprefix(AUTO)[1:]] if text))
    return _checked_ratio(name, weight)


def _checked_ratio(name: str, weight: float | LinearRamp | str) -> float | LinearRamp:
    """A number or a ramp."""
    if isinstance(weight, str):
        ramp = RAMP.fullmatch(weight)
        texts = [weight] if ramp is None else [ramp["start"], ramp["end"]]
        try:
            numbers = [float(text.replace("_", "?")) for text in texts]  # Python's 1_000 is no number here
        except ValueError:
            raise ValueError(
                f"the weight of {name!r} must be a number, FROM:TO@EPOCH-EPOCH or {AUTO}, got {weight!r}"
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

    An `AutoWeight` of ratio r sets itself in each training step, from the gradients in the output x,

        w_i = r |g| / |g_i|,    g_i = s dL_i / dx,    g = s sum_j w_j c_j dL_j / dx    over the terms of fixed weight,

    with running means of the norms over the last ``AVERAGED_STEPS`` steps and over all processes, which are buffers
    as well. s is the scale of the target, so that no unit matters, and neither does what multiplies L_i. No backward
    pass is added. In eval mode the means stay; before the first step the weight is 0.

    After each call ``last_terms`` holds the value L_i of each term, detached; and ``last_grad_norms``, every
    ``grad_norms_every`` training steps, the norm of the gradient of each w_i c_i L_i in the output, times s.

    Weights are finite and >= 0, or their text, see `parse_weights`, and give the sum its order; their names that are
    none of the terms are those of values that are handed in at each call. Raises ValueError for another weight, for
    none at all or a term without, for an `AutoWeight` of a value or without a term of fixed weight beside it, or
    grad_norms_every below 1; in the call, for values of other names, or a term that is 0 or not finite in the batch
    that normalizes. Where a gradient that sets a weight is not finite, the sum and the term are NaN.
    """

    balanced_steps: Tensor

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
        self._auto = [name for name, weight in self.weights.items() if isinstance(weight, AutoWeight)]
        self._check_auto()
        if normalize:
            for name in weights:  # by name, so that a checkpoint with other terms cannot be mistaken
                if name not in self._auto:
                    self.register_buffer(f"factor_of_{name}", torch.zeros(()))  # 0: no training batch yet
        for name in ("balanced_steps", *(f"norm_of_{name}" for name in (_FIXED, *self._auto))) if self._auto else ():
            self.register_buffer(name, torch.zeros(()))
        self.grad_norms_every = grad_norms_every
        self.last_terms: dict[str, Tensor] = {}
        self.last_grad_norms: dict[str, Tensor] = {}
        self._has_factors = False
        self._epoch = 0
        self._steps = 0

    def _check_auto(self) -> None:
        values = sorted(set(self._auto) - set(self.terms))
        require(not values, f"weights that set themselves must be of the terms {sorted(self.terms)}", values)
        fixed = [name for name in self.terms if name not in self._auto and self.weights[name] != 0]
        demand = f"{', '.join(self._auto)} with the weight {AUTO!r} must have a term with a fixed weight beside"
        require(bool(fixed) or not self._auto, demand, ", ".join(self.weights))

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch the weights are for, counting from 0."""
        self._epoch = epoch

    @property
    def current_weights(self) -> dict[str, float | Tensor]:
        """The weight of each term, of this epoch in training and the final one in eval mode.

        A weight that sets itself is a tensor, on the device of the loss.
        """
        weights: dict[str, float | Tensor] = {**self._numbers()}
        for name in self._auto:
            own = getattr(self, f"norm_of_{name}")
            weights[name] = weights[name] * torch.where(own == 0, 0.0, getattr(self, f"norm_of_{_FIXED}") / own)
        return weights

    def _numbers(self) -> dict[str, float]:
        """The weight of each term, or the ratio of one that sets itself."""
        epoch = self._epoch if self.training else math.inf
        plain = {name: w.ratio if isinstance(w, AutoWeight) else w for name, w in self.weights.items()}
        return {name: w.at(epoch) if isinstance(w, LinearRamp) else float(w) for name, w in plain.items()}

    @property
    def factors(self) -> dict[str, Tensor]:
        """The factor of each term where they are normalized, 0 before the first training batch."""
        return {
            name: getattr(self, f"factor_of_{name}") for name in self.weights if hasattr(self, f"factor_of_{name}")
        }

    def forward(
        self,
        output: Tensor,
        target: Tensor,
        data_range: Tensor | float | None = None,
        *,
        values: Mapping[str, Tensor] | None = None,
    ) -> Tensor:
        """The sum, a scalar; ``values`` are scalars by the names of the weights that are none of the terms."""
        numbers = self._numbers()
        # where all weights are 0 the sum still needs a graph
        counted = [name for name, number in numbers.items() if number > 0] or list(numbers)
        computed, names = dict(values or {}), set(numbers) - set(self.terms)
        check(set(computed) == names, "values", f"named {sorted(names)}", sorted(computed))
        left_out = self._ramps() - set(counted) if self.training and not self.normalize else set()
        # where gradients are looked at, each term's is taken here, once, and not by the backward pass
        looks = self.training and output.requires_grad and (self._is_noted() or bool(set(counted) & set(self._auto)))
        image = output.detach().requires_grad_() if looks else output
        for name, term in self.terms.items():
            if name not in left_out:
                # detached, and not without gradients: a term may compute otherwise where there are none
                computed[name] = term(image if name in counted else image.detach(), target, data_range)
        self.last_terms = {name: computed[name].detach() for name in numbers if name in computed}
        self.last_grad_norms = {}
        is_step = self.training and any(computed[name].requires_grad for name in counted)
        factors = self._make_factors(is_step=is_step)
        gradients: dict[str, Tensor] = {}
        if looks:
            of_image = [name for name in counted if name in self.terms]
            gradients = {name: torch.autograd.grad(computed[name], image)[0] for name in of_image}
            self._balance(gradients, factors, target)
        self._steps += is_step
        weights = {name: weight * factors.get(name, 1.0) for name, weight in self.current_weights.items()}
        parts = [weights[name] * computed[name] for name in counted if name not in gradients]
        if gradients:
            value = torch.stack([weights[name] * self.last_terms[name] for name in gradients]).sum()
            gradient = torch.stack([weights[name] * gradients[name] for name in gradients]).sum(dim=0)
            parts.append(_WithGradient.apply(output, value, gradient))
        return torch.stack(parts).sum()

    def _ramps(self) -> set[str]:
        """The terms whose weights, or ratios, follow the epochs."""
        plain = {name: w.ratio if isinstance(w, AutoWeight) else w for name, w in self.weights.items()}
        return {name for name, weight in plain.items() if isinstance(weight, LinearRamp)}

    def _is_noted(self) -> bool:
        """Whether this step's gradient norms are wanted."""
        return self.grad_norms_every is not None and self._steps % self.grad_norms_every == 0

    @torch.no_grad()
    def _balance(self, gradients: Mapping[str, Tensor], factors: Mapping[str, Tensor], target: Tensor) -> None:
        """Set the weights that set themselves, and note the norms of the gradients."""
        scale, numbers = image_scale(target).reshape(-1, 1, 1, 1), self._numbers()
        auto = [name for name in gradients if name in self._auto]
        if auto and len(auto) < len(gradients):  # not while the ramps of all others are at 0
            fixed = [
                numbers[name] * factors.get(name, 1.0) * gradients[name] for name in gradients if name not in auto
            ]
            vectors = [torch.stack(fixed).sum(dim=0), *(gradients[name] for name in auto)]
            norms = mean_over_processes(torch.stack([torch.linalg.vector_norm(vector * scale) for vector in vectors]))
            norms = torch.where(norms.isfinite(), norms, torch.nan)  # the loss becomes NaN, which ends a training
            self.balanced_steps += 1
            for name, norm in zip((_FIXED, *auto), norms, strict=True):
                mean = getattr(self, f"norm_of_{name}")
                mean += (norm - mean) / self.balanced_steps.clamp(max=AVERAGED_STEPS)
                if name in auto:
                    self.last_terms[name] = torch.where(norm.isfinite(), self.last_terms[name], torch.nan)
        if self._is_noted():
            for name, weight in self.current_weights.items():
                if name in gradients:
                    norm = torch.linalg.vector_norm(gradients[name] * scale)
                    self.last_grad_norms[name] = weight * factors.get(name, 1.0) * norm

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


class _WithGradient(torch.autograd.Function):
    """A value whose gradient in the image is known."""

    @staticmethod
    def forward(ctx: Any, image: Tensor, value: Tensor, gradient: Tensor) -> Tensor:
        ctx.save_for_backward(gradient)
        return value.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = ctx.saved_tensors
        return grad * gradient, None, None


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
