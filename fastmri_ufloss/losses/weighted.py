"""The weighted sum of named losses."""

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from fastmri_ufloss.losses.normalized_sum import first_values
from fastmri_ufloss.mri.intensity import image_scale

__all__ = ["LinearRamp", "Weight", "WeightedLoss"]


class LinearRamp(NamedTuple):
    """A weight that goes from ``start`` to ``end`` in a straight line, and stays there.

    It is ``start`` up to and in ``first_epoch``, and ``end`` in and after ``last_epoch``; epochs count from 0.
    """

    start: float
    end: float
    first_epoch: int
    last_epoch: int

    def at(self, epoch: int) -> float:
        """The weight in an epoch."""
        if epoch >= self.last_epoch:
            return self.end
        done = max(0, epoch - self.first_epoch) / (self.last_epoch - self.first_epoch)
        return self.start + (self.end - self.start) * done


Weight = float | LinearRamp


class WeightedLoss(nn.Module):
    """sum_i w_i c_i L_i(output, target, data_range), with the call of each of its terms.

    The weights w_i are constant, or follow the epoch that `set_epoch` names: the modules of this project call it,
    a loop of one's own should. In eval mode ramps have their final weight, so that the loss of a validation can be
    compared from epoch to epoch. The factors c_i are 1; with ``normalize`` they are 1 / L_i of the first training
    batch, the mean over all processes. They are buffers, so a checkpoint that holds this module holds them. A term
    whose weight is 0 is computed, and takes no part in the gradient.

    After each call ``last_terms`` holds the value L_i of each term without weight and factor, detached; and
    ``last_grad_norms``, where they were asked for, the norm of the gradient of each w_i c_i L_i in the output, times
    the scale of its target, which makes it independent of the unit of the images. They cost a backward pass of each
    loss, but not of the network.

    Args:
        terms: losses by name.
        weights: their weights by the same names, finite and >= 0.
        normalize: whether all terms are 1 in the first training batch.
        grad_norms_every: training steps from one set of gradient norms to the next, None for none.

    Raises:
        ValueError: if the names differ, there is none, a weight is not as above, or grad_norms_every is below 1;
            in the call, if a term cannot be normalised since it is 0 or not finite in the first batch.

    Normalisation as in Seitzer et al., "Adversarial and perceptual refinement for compressed sensing MRI
    reconstruction", MICCAI 2018.
    """

    def __init__(
        self,
        terms: Mapping[str, nn.Module],
        weights: Mapping[str, Weight],
        *,
        normalize: bool = False,
        grad_norms_every: int | None = None,
    ) -> None:
        super().__init__()
        if not terms or set(terms) != set(weights):
            raise ValueError(f"weights must name the terms {sorted(terms)}, got {sorted(weights)}")
        for name, weight in weights.items():
            _check_weight(name, weight)
        if grad_norms_every is not None and grad_norms_every < 1:
            raise ValueError(f"grad_norms_every must be at least 1, got {grad_norms_every}")
        self.terms = nn.ModuleDict(terms)
        self.weights: dict[str, Weight] = {name: weights[name] for name in terms}
        self.normalize = normalize
        if normalize:
            for name in terms:  # by name, so that a checkpoint with other terms cannot be mistaken
                self.register_buffer(_factor_name(name), torch.zeros(()))  # 0: there was no training batch yet
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
        return {name: self._current(weight) for name, weight in self.weights.items()}

    @property
    def factors(self) -> dict[str, Tensor]:
        """The factor of each term where they are normalised, 0 before the first training batch."""
        return {name: getattr(self, _factor_name(name)) for name in self.terms} if self.normalize else {}

    def forward(self, output: Tensor, target: Tensor, data_range: Tensor | float | None = None) -> Tensor:
        """The sum, a scalar; the arguments are those of each term."""
        weights = self.current_weights
        # where all weights are 0 the sum still needs a graph
        counted = [name for name, weight in weights.items() if weight > 0] or list(weights)
        values = {}
        for name, term in self.terms.items():
            # detached, and not without gradients: a term may compute otherwise where there are none
            values[name] = term(output if name in counted else output.detach(), target, data_range)
        self.last_terms = {name: value.detach() for name, value in values.items()}
        is_step = self.training and output.requires_grad
        factors = self._make_factors(is_step=is_step)
        weighted = {name: weights[name] * factors.get(name, 1.0) * values[name] for name in counted}
        if is_step:
            self._note_grad_norms(weighted, output, target)
        return torch.stack(list(weighted.values())).sum()

    def _current(self, weight: Weight) -> float:
        if not isinstance(weight, LinearRamp):
            return float(weight)
        return weight.at(self._epoch) if self.training else weight.end

    def _make_factors(self, *, is_step: bool) -> dict[str, Tensor]:
        """The factor of each term, where they are normalised; the first training step sets them."""
        factors = self.factors
        if factors and is_step and not self._has_factors:
            if not bool(torch.stack(list(factors.values())).all()):
                for name, value in first_values(self.last_terms).items():
                    factors[name].copy_(1 / value)
            self._has_factors = True  # not to ask the device again at each step
        return {name: torch.where(factor > 0, factor, 1.0) for name, factor in factors.items()}

    def _note_grad_norms(self, weighted: Mapping[str, Tensor], output: Tensor, target: Tensor) -> None:
        self.last_grad_norms = {}
        if self.grad_norms_every is not None and self._steps % self.grad_norms_every == 0:
            scale = image_scale(target).reshape(-1, 1, 1, 1)
            for name, value in weighted.items():
                (gradient,) = torch.autograd.grad(value, output, retain_graph=True)
                self.last_grad_norms[name] = torch.linalg.vector_norm(gradient * scale)
        self._steps += 1


def _factor_name(term: str) -> str:
    return f"factor_of_{term}"


def _check_weight(name: str, weight: Weight) -> None:
    values = (weight.start, weight.end) if isinstance(weight, LinearRamp) else (weight,)
    for value in values:
        if not (isinstance(value, int | float) and math.isfinite(value) and value >= 0):
            raise ValueError(f"the weight of loss {name!r} must be a number >= 0, got {value}")
    if isinstance(weight, LinearRamp) and not 0 <= weight.first_epoch < weight.last_epoch:
        raise ValueError(
            f"the ramp of loss {name!r} must begin in an epoch from 0 and end in a later one, got "
            f"{weight.first_epoch} to {weight.last_epoch}"
        )
