"""The weighted sum of values whose sizes are made comparable by the first training step."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

__all__ = ["NormalizedSum", "first_values"]


class NormalizedSum(nn.Module):
    """sum_i w_i c_i L_i of named values, with c_i = 1 / L_i of the first training batch, or 1.

    In the first batch each term is its weight, whatever its unit: with the weights 1/2, 1/2, 1 and 0.1 for the
    adversarial loss, feature matching, the perceptual loss and the penalty it is the objective of Seitzer et al.,
    MICCAI 2018, whose M, N, O are the first values and whose alpha is 0.1 over the first penalty. The c_i are of the
    means over all processes, and buffers, so a checkpoint that holds this module holds them.

    Args:
        weights: by the names of the values, finite and >= 0.
        normalize: whether c_i is as above, or 1.

    Raises:
        ValueError: if there is no weight, or one is not as above; in the call, if the names differ, or a value
            is 0 or not finite in the first step.
    """

    def __init__(self, weights: Mapping[str, float], *, normalize: bool = True) -> None:
        super().__init__()
        if not weights:
            raise ValueError("weights must name at least one value, got none")
        for name, weight in weights.items():
            if not (isinstance(weight, int | float) and math.isfinite(weight) and weight >= 0):
                raise ValueError(f"the weight of {name!r} must be a number >= 0, got {weight}")
        self.weights = {name: float(weight) for name, weight in weights.items()}
        self.normalize = normalize
        self._has_factors = not normalize
        if normalize:
            for name in weights:
                self.register_buffer(f"factor_of_{name}", torch.zeros(()))  # 0: there was no step yet

    @property
    def factors(self) -> dict[str, Tensor]:
        """c_i by name where values are normalised, 0 before the first step."""
        return {name: getattr(self, f"factor_of_{name}") for name in self.weights} if self.normalize else {}

    def forward(self, values: Mapping[str, Tensor]) -> Tensor:
        """The sum, a scalar; in training mode with gradients the first call sets the factors.

        Args:
            values: scalars by the names of the weights.
        """
        if set(values) != set(self.weights):
            raise ValueError(f"values must be named {sorted(self.weights)}, got {sorted(values)}")
        factors = self.factors
        if not self._has_factors and self.training and torch.is_grad_enabled():
            unset = [name for name, factor in factors.items() if not factor]
            if unset:
                found = first_values({name: values[name].detach() for name in self.weights})
                for name in unset:
                    factors[name].copy_(1 / found[name])
            self._has_factors = True  # not to ask the device again at each step
        terms = [
            weight * (torch.where(factors[name] > 0, factors[name], 1.0) if factors else 1.0) * values[name]
            for name, weight in self.weights.items()
        ]
        return torch.stack(terms).sum()


def first_values(values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The values by which terms are normalised: their mean over all processes.

    Args:
        values: scalars by name, detached.

    Raises:
        ValueError: if one is 0 or not finite.
    """
    means = torch.stack([value if value.dtype == torch.float64 else value.float() for value in values.values()])
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.all_reduce(means)
        means = means / torch.distributed.get_world_size()
    found = dict(zip(values, means.tolist(), strict=True))
    bad = [name for name, value in found.items() if not 0 < value < math.inf]
    if bad:
        raise ValueError(
            f"losses {', '.join(bad)} cannot be normalised by their value in the first batch, {found}: each must "
            "be above 0 and finite"
        )
    return dict(zip(values, means, strict=True))
