"""The sum whose terms are 1 in the first step."""

import math

import pytest
import torch

from fastmri_ufloss.losses.normalized_sum import NormalizedSum

WEIGHTS = {"adversarial": 0.5, "feature_matching": 0.5, "perceptual": 1.0, "penalty": 0.1}


def terms(*values: float) -> dict[str, torch.Tensor]:
    return {name: torch.tensor(value, requires_grad=True) for name, value in zip(WEIGHTS, values, strict=True)}


def test_each_term_is_its_weight_in_the_first_step_and_relative_to_it_later() -> None:
    objective = NormalizedSum(WEIGHTS)
    assert float(objective(terms(0.7, 40.0, 3e-5, 900.0))) == pytest.approx(2.1, rel=1e-6)
    assert float(1 / objective.factors["feature_matching"]) == pytest.approx(40.0)
    later = objective(terms(1.4, 40.0, 3e-5, 0.0))
    assert float(later) == pytest.approx(1.0 + 0.5 + 1.0, rel=1e-6)


def test_gradient_is_that_of_the_weighted_terms() -> None:
    objective, values = NormalizedSum(WEIGHTS), terms(0.7, 40.0, 3e-5, 900.0)
    objective(values).backward()
    for name, value in values.items():
        assert float(value.grad) == pytest.approx(WEIGHTS[name] / float(value), rel=1e-5)


def test_factors_are_state_and_are_not_set_in_validation() -> None:
    objective = NormalizedSum(WEIGHTS).eval()
    assert float(objective(terms(1.0, 1.0, 1.0, 1.0))) == pytest.approx(2.1)
    assert float(objective(terms(2.0, 2.0, 2.0, 2.0))) == pytest.approx(4.2)  # no factors yet: as they are
    objective.train()
    objective(terms(0.7, 40.0, 3e-5, 900.0))
    other = NormalizedSum(WEIGHTS)
    other.load_state_dict(objective.state_dict())
    assert float(other(terms(0.7, 40.0, 3e-5, 900.0))) == pytest.approx(2.1)
    assert float(other(terms(1.4, 80.0, 6e-5, 1800.0))) == pytest.approx(4.2)


def test_without_normalisation_it_is_the_weighted_sum() -> None:
    objective = NormalizedSum(WEIGHTS, normalize=False)
    assert float(objective(terms(2.0, 4.0, 3.0, 10.0))) == pytest.approx(1 + 2 + 3 + 1)
    assert not objective.factors and not objective.state_dict()


@pytest.mark.parametrize("value", [0.0, math.nan, math.inf])
def test_a_first_value_that_cannot_be_a_unit(value: float) -> None:
    with pytest.raises(ValueError, match="feature_matching cannot be normalised"):
        NormalizedSum(WEIGHTS)(terms(1.0, value, 1.0, 1.0))


def test_bad_weights_and_names() -> None:
    with pytest.raises(ValueError, match="at least one value"):
        NormalizedSum({})
    with pytest.raises(ValueError, match="'penalty' must be a number >= 0"):
        NormalizedSum({"penalty": -1.0})
    with pytest.raises(ValueError, match="must be named"):
        NormalizedSum(WEIGHTS)({"adversarial": torch.tensor(1.0)})
