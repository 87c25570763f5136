import math
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fastmri_ufloss.losses import discriminator_loss, feature_matching_loss, generator_loss


def randn(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def pair(dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    return 2 * randn(2, 1, 3, 4, seed=1, dtype=dtype), 2 * randn(2, 1, 3, 4, seed=2, dtype=dtype)


def maps(seed: int, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    return [randn(2, n, 6 - n, 5, seed=seed + n, dtype=dtype) for n in (1, 2, 3)]


def sigmoid(x: Tensor) -> np.ndarray:
    return 1 / (1 + np.exp(-x.double().numpy()))


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.9])
def test_discriminator_loss_and_numpy(smoothing: float) -> None:
    real, fake = pair()
    p, q = sigmoid(real), sigmoid(fake)
    expected = -((1 - smoothing) * np.log(p) + smoothing * np.log(1 - p)).mean() - np.log(1 - q).mean()
    assert discriminator_loss(real, fake, label_smoothing=smoothing).item() == pytest.approx(expected, rel=1e-5)
    if smoothing == 0.1:
        assert torch.equal(discriminator_loss(real, fake), discriminator_loss(real, fake, label_smoothing=0.1))


def test_generator_loss_and_numpy() -> None:
    _, fake = pair()
    assert generator_loss(fake).item() == pytest.approx(-np.log(sigmoid(fake)).mean(), rel=1e-5)


def test_feature_matching_loss_and_numpy() -> None:
    real, fake = maps(0), maps(10)
    means = [np.abs(r.numpy() - f.numpy()).mean() for r, f in zip(real, fake, strict=True)]
    assert feature_matching_loss(real, fake).item() == pytest.approx(np.mean(means), rel=1e-5)
    assert feature_matching_loss(real, [m.clone() for m in real]) == 0
    # each map weighs the same, however many values it has
    large, small = torch.zeros(1, 8, 9, 9), torch.zeros(1, 1, 2, 2)
    assert feature_matching_loss([large, small], [large + 1, small]) == 0.5
    assert feature_matching_loss([large, small], [large, small + 1]) == 0.5


def test_logits_of_zero() -> None:
    zero = torch.zeros(2, 1, 3, 4)
    assert generator_loss(zero).item() == pytest.approx(math.log(2))
    assert discriminator_loss(zero, zero).item() == pytest.approx(2 * math.log(2))


def test_smoothing_is_one_sided() -> None:
    # a sure discriminator pays for being sure of real images only
    fake = torch.full((1, 1, 2, 2), -30.0)
    best = math.log(0.9 / 0.1)
    values = [discriminator_loss(torch.full_like(fake, x), fake).item() for x in (best - 0.5, best, best + 0.5, 30)]
    assert values[1] == min(values) and values[3] > 2.9
    assert discriminator_loss(-fake, fake, label_smoothing=0).item() < 1e-6
    real = torch.full_like(fake, best)
    assert discriminator_loss(real, fake) < discriminator_loss(real, fake / 10)


def test_extreme_logits_have_finite_values_and_gradients() -> None:
    real, fake = (x.requires_grad_() for x in (torch.full((1, 1, 2, 2), -1e4), torch.full((1, 1, 2, 2), 1e4)))
    value = discriminator_loss(real, fake) + generator_loss(-fake)
    value.backward()
    assert value.isfinite()
    assert real.grad is not None and real.grad.isfinite().all() and fake.grad is not None and fake.grad.any()


def test_gradients_in_float64() -> None:
    real, fake = (x.requires_grad_() for x in pair(torch.float64))
    assert torch.autograd.gradcheck(discriminator_loss, (real, fake))
    assert torch.autograd.gradcheck(partial(discriminator_loss, label_smoothing=0.5), (real, fake))
    assert torch.autograd.gradcheck(generator_loss, fake)
    known, found = maps(0, torch.float64), [m.requires_grad_() for m in maps(10, torch.float64)]
    assert torch.autograd.gradcheck(lambda *found: feature_matching_loss(known, found), found)


def test_real_features_get_no_gradient() -> None:
    real, fake = ([m.requires_grad_() for m in maps(seed)] for seed in (0, 10))
    feature_matching_loss(real, fake).backward()
    assert all(m.grad is None for m in real)
    assert all(m.grad is not None and m.grad.any() for m in fake)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_is_computed_in_float32(dtype: torch.dtype) -> None:
    real, fake = (x.to(dtype) for x in pair())
    known, found = ([m.to(dtype) for m in maps(seed)] for seed in (0, 10))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        values = [discriminator_loss(real, fake), generator_loss(fake), feature_matching_loss(known, found)]
    expected = [
        discriminator_loss(real.float(), fake.float()),
        generator_loss(fake.float()),
        feature_matching_loss([m.float() for m in known], [m.float() for m in found]),
    ]
    for value, wanted in zip(values, expected, strict=True):
        assert value.dtype == torch.float32
        torch.testing.assert_close(value, wanted, rtol=1e-6, atol=0)


def test_playing_against_each_other_moves_logits_apart_and_together() -> None:
    weight = nn.Parameter(torch.zeros(1))
    real, fake = torch.ones(1, 1, 2, 2), -torch.ones(1, 1, 2, 2)
    discriminator_loss(weight * real, weight * fake).backward()
    assert weight.grad is not None and weight.grad < 0  # more weight tells them apart
    logits = torch.zeros(1, 1, 2, 2, requires_grad=True)
    generator_loss(logits).backward()
    assert logits.grad is not None and (logits.grad < 0).all()  # higher logits look more like real images


def test_bad_input_is_named() -> None:
    real, fake = pair()
    for smoothing in (-0.1, 1.0, math.nan):
        with pytest.raises(ValueError, match=r"label_smoothing must be in \[0, 1\), got"):
            discriminator_loss(real, fake, label_smoothing=smoothing)
    with pytest.raises(ValueError, match=r"fake_logits must have the shape of real_logits, got \(1, 1, 3, 4\)"):
        discriminator_loss(real, fake[:1])
    for wrong in (fake[:0], fake + 0j, fake.int()):
        with pytest.raises(ValueError, match="fake_logits must be real and not empty"):
            generator_loss(wrong)
        with pytest.raises(ValueError, match="real_logits must be real and not empty"):
            discriminator_loss(wrong, wrong)
    for known, found in (([], []), (maps(0), maps(0)[1:])):
        with pytest.raises(ValueError, match="must have the same number of maps, at least 1, got"):
            feature_matching_loss(known, found)
    with pytest.raises(ValueError, match=r"fake_features\[1\] must have the shape of real_features\[1\]"):
        feature_matching_loss(maps(0), [maps(0)[0], maps(0)[1][:1], maps(0)[2]])
    with pytest.raises(ValueError, match=r"real_features\[0\] must be real and not empty"):
        feature_matching_loss([fake + 0j], [fake])
