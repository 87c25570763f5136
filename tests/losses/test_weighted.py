"""The weighted sum: its terms, ramps, gradient norms and normalization."""

import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import ROOT, randn_complex
from torch import nn

from fastmri_ufloss.losses import (
    LOSS_NAMES,
    AutoWeight,
    HFENLoss,
    L1Loss,
    L2Loss,
    LinearRamp,
    SSIMLoss,
    UFLoss,
    WeightedLoss,
    hfen_loss,
    l1_loss,
    l2_loss,
    make_loss,
    parse_weights,
)
from fastmri_ufloss.models import PatchFeatureNet, VGGFeatures


class TinyNet(nn.Module):
    """A feature network in shape: unit vectors of patches."""

    in_chans, patch_size = 2, 32

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 8, stride=8)

    def forward(self, patches: torch.Tensor) -> torch.Tensor:
        return nn.functional.normalize(self.conv(patches).flatten(1), dim=1)


def pair() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    target = randn_complex(2, 1, 40, 36, seed=1) + 1
    output = target + 0.1 * randn_complex(2, 1, 40, 36, seed=2)
    return output, target, target.abs().amax(dim=(1, 2, 3))


def test_sum_and_its_terms() -> None:
    output, target, data_range = pair()
    net = TinyNet()
    loss = make_loss({"l2": 2.0, "ssim": 0.5, "ufloss": 1.5}, feature_net=net).eval()
    total = loss(output, target, data_range)
    terms = {
        "l2": L2Loss()(output, target),
        "ssim": SSIMLoss()(output, target, data_range),
        "ufloss": UFLoss(net).eval()(output, target),
    }
    torch.testing.assert_close(total, 2 * terms["l2"] + 0.5 * terms["ssim"] + 1.5 * terms["ufloss"])
    assert list(loss.last_terms) == list(terms)
    for name, value in terms.items():
        torch.testing.assert_close(loss.last_terms[name], value)


def test_every_name_makes_a_loss_with_the_same_call() -> None:
    output, target = (image.abs()[:, :, :36] for image in pair()[:2])
    loss = make_loss(
        dict.fromkeys(LOSS_NAMES, 1.0),
        feature_net=PatchFeatureNet(1, patch_size=32, num_features=8),
        vgg=VGGFeatures("vgg16"),
        settings={"ms_ssim": {"num_scales": 1}},
    )
    total = loss(output.requires_grad_(), target, torch.full((2,), 5.0))
    total.backward()
    assert list(loss.last_terms) == list(LOSS_NAMES)
    assert all(float(value) > 0 for value in loss.last_terms.values())
    assert float(total.detach()) == pytest.approx(sum(map(float, loss.last_terms.values())), rel=1e-5)
    assert output.grad is not None and output.grad.isfinite().all()


def test_settings_reach_the_loss() -> None:
    loss = make_loss({"ufloss": 1.0}, feature_net=TinyNet(), settings={"ufloss": {"stride": 3}})
    assert loss.terms["ufloss"].stride == 3


def test_state_dict_has_no_networks() -> None:
    loss = make_loss({"l2": 1.0, "ufloss": 1.5, "perceptual": 1.0}, feature_net=TinyNet(), vgg=VGGFeatures("vgg16"))
    parent = nn.ModuleDict({"model": nn.Linear(2, 2), "loss": loss})
    assert list(parent.state_dict()) == ["model.weight", "model.bias"]
    parent.load_state_dict(parent.state_dict())


def test_ramp() -> None:
    ramp = LinearRamp(0.5, 2.5, 2, 6)
    assert [ramp.at(epoch) for epoch in (0, 2, 3, 4, 6, 9)] == [0.5, 0.5, 1.0, 1.5, 2.5, 2.5]
    output, target, _ = pair()
    loss = make_loss({"l1": 1.0, "l2": ramp})
    for epoch, weight in ((0, 0.5), (4, 1.5), (8, 2.5)):
        loss.train().set_epoch(epoch)
        expected = l1_loss(output, target) + weight * l2_loss(output, target)
        torch.testing.assert_close(loss(output, target), expected)
        assert loss.current_weights == {"l1": 1.0, "l2": weight}
        # a validation has the final weights, so that its epochs can be compared
        torch.testing.assert_close(
            loss.eval()(output, target), l1_loss(output, target) + 2.5 * l2_loss(output, target)
        )


def test_weight_of_zero_is_logged_and_gives_no_gradient() -> None:
    output, target, _ = pair()

    class Infinite(nn.Module):
        def forward(self, output: torch.Tensor, target: torch.Tensor, data_range: Any = None) -> torch.Tensor:
            return (output - target).abs().sum() * math.inf

    output.requires_grad_()
    loss = WeightedLoss({"l1": L1Loss(), "bad": Infinite()}, {"l1": 1.0, "bad": 0.0})
    torch.testing.assert_close(loss(output, target), l1_loss(output, target))
    assert float(loss.last_terms["bad"]) == math.inf
    only = pair()[0].requires_grad_()
    zero = WeightedLoss({"l1": L1Loss()}, {"l1": LinearRamp(0, 1, 1, 2)})
    zero(only, target).backward()  # a ramp alone that has not begun
    assert only.grad is not None and not only.grad.any()


def test_ramp_that_has_not_begun_costs_nothing() -> None:
    output, target, _ = pair()
    calls = []

    class Counted(nn.Module):
        def forward(self, output: torch.Tensor, target: torch.Tensor, data_range: Any = None) -> torch.Tensor:
            calls.append(output.requires_grad)
            return l1_loss(output, target)

    output.requires_grad_()
    loss = WeightedLoss({"l1": L1Loss(), "late": Counted()}, {"l1": 1.0, "late": LinearRamp(0, 1, 2, 4)})
    loss.set_epoch(2)
    torch.testing.assert_close(loss(output, target), l1_loss(output, target))
    assert calls == [] and list(loss.last_terms) == ["l1"]
    loss.set_epoch(3)
    torch.testing.assert_close(loss(output, target), 1.5 * l1_loss(output, target))
    loss.set_epoch(0)
    loss.eval()(output, target)
    assert calls == [True, True] and list(loss.last_terms) == ["l1", "late"]


def test_ufloss_of_weight_zero_draws_its_patches_and_not_the_whole_grid() -> None:
    counts = []
    net = TinyNet()
    net.register_forward_hook(lambda module, inputs, output: counts.append(len(output)))
    settings = {"ufloss": {"stride": 1, "patches_per_step": 4}}
    loss = make_loss({"l1": 1.0, "ufloss": 0.0}, feature_net=net, settings=settings)
    output, target, _ = pair()
    loss(output.requires_grad_(), target).backward()
    assert counts == [8, 8]  # of two outputs and two targets


def test_gradient_norms() -> None:
    output, target, _ = pair()
    output.requires_grad_()
    net = TinyNet()
    loss = make_loss(
        {"l2": 2.0, "ufloss": 1.5},
        feature_net=net,
        settings={"ufloss": {"patches_per_step": 10**6, "chunk_size": 2, "stride": 2}},  # chunks that are recomputed
        grad_norms_every=2,
    )
    torch.manual_seed(0)
    total = loss(output, target)
    norms = {name: float(norm) for name, norm in loss.last_grad_norms.items()}
    (whole,) = torch.autograd.grad(total, output)
    (l2,) = torch.autograd.grad(2 * l2_loss(output, target), output)
    scale = target.abs().flatten(1).kthvalue(math.ceil(0.95 * 40 * 36)).values.reshape(-1, 1, 1, 1)
    assert norms["l2"] == pytest.approx(float((l2 * scale).norm()), rel=1e-4)
    assert norms["ufloss"] == pytest.approx(float(((whole - l2) * scale).norm()), rel=1e-3)
    # the unit of the images does not matter
    raw = (1e-5 * output.detach()).requires_grad_()
    loss(raw, 1e-5 * target)  # the second step has none
    assert loss.last_grad_norms == {}
    loss(raw, 1e-5 * target)
    assert float(loss.last_grad_norms["l2"]) == pytest.approx(norms["l2"], rel=1e-4)
    loss.eval()(raw, 1e-5 * target)
    with torch.no_grad():
        loss.train()(raw, 1e-5 * target)


def test_gradient_norms_do_not_change_the_gradient() -> None:
    gradients = []
    for every in (None, 1):
        output, target, data_range = pair()
        output.requires_grad_()
        loss = make_loss({"l2": 2.0, "ssim": 1.0, "ufloss": 1.5}, feature_net=TinyNet(), grad_norms_every=every)
        torch.manual_seed(0)
        loss.terms["ufloss"].feature_net.conv.weight.data.normal_()
        loss(output, target, data_range).backward()
        gradients.append(output.grad)
    torch.testing.assert_close(*gradients)


def test_normalization_by_the_first_batch(tmp_path: Path) -> None:
    output, target, data_range = pair()
    output.requires_grad_()
    loss = make_loss({"l1": 1.0, "ssim": 0.25, "l2": 2.0}, normalize=True)
    plain = make_loss({"l1": 1.0, "ssim": 0.25, "l2": 2.0})
    # a validation before it changes nothing
    torch.testing.assert_close(loss.eval()(output, target, data_range), plain(output, target, data_range))
    first = loss.train()(output, target, data_range)
    assert float(first) == pytest.approx(3.25, rel=1e-5)
    # then the factors stay, and are in the state dict
    halved = target + (output - target) / 2
    expected = plain(halved, target, data_range)
    terms = plain.last_terms
    plain(output, target, data_range)
    expected = sum(plain.weights[name] * terms[name] / plain.last_terms[name] for name in terms)
    torch.testing.assert_close(loss(halved, target, data_range), expected)
    assert not torch.allclose(expected, first)
    torch.save(loss.state_dict(), tmp_path / "loss.pt")
    again = make_loss({"l1": 1.0, "ssim": 0.25, "l2": 2.0}, normalize=True)
    again.load_state_dict(torch.load(tmp_path / "loss.pt", weights_only=True))
    torch.testing.assert_close(again(halved, target, data_range), expected)


def test_what_cannot_be_normalized_is_named() -> None:
    output, target, _ = pair()
    loss = make_loss({"l1": 1.0, "l2": 1.0}, normalize=True)
    with pytest.raises(ValueError, match="losses l1, l2 cannot be normalized"):
        loss(target.clone().requires_grad_(), target)
    with pytest.raises(ValueError, match="losses l1, l2 cannot be normalized"):
        loss((output * math.nan).requires_grad_(), target)
    assert not any(loss.factors.values())


class Scaled(nn.Module):
    """A loss times a factor, whose gradient may be made NaN or zero."""

    def __init__(self, loss: nn.Module, factor: float) -> None:
        super().__init__()
        self.loss, self.factor = loss, factor

    def forward(self, output: torch.Tensor, target: torch.Tensor, data_range: Any = None) -> torch.Tensor:
        return self.factor * self.loss(output, target, data_range)


@pytest.mark.parametrize("factor", [1e-3, 1.0, 1e4])
@pytest.mark.parametrize("unit", [1e-5, 1.0])
def test_weight_that_sets_itself(factor: float, unit: float) -> None:
    """The first gradient is of the length asked for, whatever multiplies the term or the images."""
    output, target, _ = (unit * image for image in pair())
    output.requires_grad_()
    terms = {"l2": L2Loss(), "l1": L1Loss(), "hfen": Scaled(HFENLoss(), factor)}
    loss = WeightedLoss(terms, {"l2": 2.0, "l1": 0.1, "hfen": "auto:0.3"})
    total = loss(output, target)
    (gradient,) = torch.autograd.grad(total, output)
    fixed = torch.autograd.grad(2 * l2_loss(output, target) + 0.1 * l1_loss(output, target), output)[0]
    # the images of a batch differ in scale
    scale = target.abs().flatten(1).kthvalue(math.ceil(0.95 * 40 * 36)).values.reshape(-1, 1, 1, 1)
    difference = float(((gradient - fixed) * scale).norm())
    assert difference == pytest.approx(0.3 * float((fixed * scale).norm()), rel=1e-4)
    weight = float(loss.current_weights["hfen"])
    same = WeightedLoss(terms, {"l2": 2.0, "l1": 0.1, "hfen": weight})
    torch.testing.assert_close(total, same(output, target))
    torch.testing.assert_close(gradient, torch.autograd.grad(same(output, target), output)[0], rtol=1e-4, atol=0)
    plain = l2_loss(output, target) * 2 + l1_loss(output, target) * 0.1 + weight * factor * hfen_loss(output, target)
    torch.testing.assert_close(total, plain, rtol=1e-4, atol=0)
    torch.testing.assert_close(loss.eval()(output, target), plain, rtol=1e-4, atol=0)


def test_weight_that_sets_itself_follows_the_mean_of_the_norms_and_is_state() -> None:
    _, target, _ = pair()
    loss = make_loss({"l2": 1.0, "hfen": "auto"}, grad_norms_every=1)
    assert float(loss.eval()(2 * target, target)) == pytest.approx(
        float(l2_loss(2 * target, target))
    )  # no weight yet
    loss.train()
    fixed, own = [], []
    for seed in range(4):
        output = (target + 0.1 * (1 + seed) * randn_complex(2, 1, 40, 36, seed=seed)).requires_grad_()
        loss(output, target)
        scale = target.abs().flatten(1).kthvalue(math.ceil(0.95 * 40 * 36)).values.reshape(-1, 1, 1, 1)
        gradients = [torch.autograd.grad(f(output, target), output)[0] * scale for f in (l2_loss, hfen_loss)]
        fixed.append(float(gradients[0].norm()))
        own.append(float(gradients[1].norm()))
        expected = (sum(fixed) / len(fixed)) / (sum(own) / len(own))
        assert float(loss.current_weights["hfen"]) == pytest.approx(expected, rel=1e-4)
        assert float(loss.last_grad_norms["hfen"]) == pytest.approx(expected * own[-1], rel=1e-4)
    again = make_loss({"l2": 1.0, "hfen": "auto"})
    again.load_state_dict(loss.state_dict())
    values = [each.train()(output, target).detach() for each in (loss, again)]
    torch.testing.assert_close(*values, rtol=0, atol=0)


def test_weight_that_sets_itself_under_a_ramp_of_its_ratio() -> None:
    output, target, _ = pair()
    output.requires_grad_()
    loss = make_loss({"l2": 1.0, "hfen": "auto:0:2@1-3"})
    torch.testing.assert_close(loss(output, target), l2_loss(output, target))
    assert list(loss.last_terms) == ["l2"] and not any(loss.state_dict().values())
    loss.set_epoch(2)
    l2 = torch.autograd.grad(l2_loss(output, target), output)[0]
    both = torch.autograd.grad(loss(output, target), output)[0]
    assert float((both - l2).norm()) == pytest.approx(float(l2.norm()), rel=0.05)  # two images, of nearly one scale


def test_weight_that_sets_itself_beside_normalized_terms_and_values() -> None:
    output, target, _ = pair()
    output.requires_grad_()
    value = torch.tensor(3.0, requires_grad=True)
    loss = WeightedLoss({"l2": L2Loss(), "l1": L1Loss()}, {"l2": 1.0, "l1": "auto", "penalty": 0.1}, normalize=True)
    total = loss(output, target, values={"penalty": value})
    weight = float(loss.current_weights["l1"]) * float(l1_loss(output, target))
    assert float(total.detach()) == pytest.approx(1.0 + weight + 0.1, rel=1e-5)
    total.backward()
    assert float(value.grad) == pytest.approx(0.1 / 3)
    assert sorted(loss.factors) == ["l2", "penalty"]


def test_gradient_that_cannot_set_a_weight() -> None:
    output, target, _ = pair()
    output.requires_grad_()
    none = WeightedLoss({"l2": L2Loss(), "zero": Scaled(L1Loss(), 0.0)}, {"l2": 1.0, "zero": "auto"})
    torch.testing.assert_close(none(output, target), l2_loss(output, target))
    assert float(none.current_weights["zero"]) == 0
    for factor in (math.nan, math.inf):
        bad = WeightedLoss({"l2": L2Loss(), "bad": Scaled(L1Loss(), factor)}, {"l2": 1.0, "bad": "auto"})
        assert bad(output, target).isnan()
        assert bad.last_terms["bad"].isnan() and bad.last_terms["l2"].isfinite()


def test_weight_that_sets_itself_waits_for_the_ramp_of_the_fixed_term() -> None:
    output, target, _ = pair()
    output.requires_grad_()
    loss = make_loss({"l2": "0:1@1-3", "hfen": "auto"})
    assert float(loss(output, target).detach()) == 0 and float(loss.current_weights["hfen"]) == 0
    loss.set_epoch(2)
    loss(output, target)
    assert float(loss.current_weights["hfen"]) > 0


def test_weights_that_have_nothing_to_follow() -> None:
    for weights in ({"l2": "auto"}, {"l2": "auto", "l1": "auto"}, {"l2": 0.0, "l1": "auto"}):
        with pytest.raises(ValueError, match="with the weight 'auto' must have a term with a fixed weight beside"):
            make_loss(weights)
    with pytest.raises(ValueError, match=r"must be of the terms \['l2'\], got \['penalty'\]"):
        WeightedLoss({"l2": L2Loss()}, {"l2": 1.0, "penalty": "auto"})


FACTORS_OF_A_PROCESS = """
import sys

import torch
from helpers import randn_complex

from fastmri_ufloss.losses import make_loss

folder, rank = sys.argv[1], int(sys.argv[2])
torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
target = randn_complex(2, 1, 40, 36, seed=1) + 1
output = target + 0.1 * randn_complex(2, 1, 40, 36, seed=2)
loss = make_loss({"l1": 1.0, "ssim": 1.0, "hfen": "auto"}, normalize=True)
one = slice(rank, rank + 1)
loss(output[one].requires_grad_(), target[one], target[one].abs().amax(dim=(1, 2, 3)))
torch.save([torch.stack(list(loss.factors.values())), loss.current_weights["hfen"]], f"{folder}/{rank}.pt")
torch.distributed.destroy_process_group()
"""


def test_factors_are_the_same_on_every_process(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "tests"), "OMP_NUM_THREADS": "1"}
    commands = [[sys.executable, "-c", FACTORS_OF_A_PROCESS, str(tmp_path), str(rank)] for rank in range(2)]
    processes = [subprocess.Popen(command, env=environment) for command in commands]
    assert [process.wait(timeout=120) for process in processes] == [0, 0]
    ranks = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)]
    assert torch.equal(ranks[0][0], ranks[1][0])
    assert torch.equal(ranks[0][1], ranks[1][1])  # the weight that sets itself
    output, target, data_range = pair()
    whole = make_loss({"l1": 1.0, "ssim": 1.0}, normalize=True)
    whole(output.requires_grad_(), target, data_range)
    torch.testing.assert_close(ranks[0][0], torch.stack(list(whole.factors.values())))


def test_bad_names_and_weights_are_named() -> None:
    with pytest.raises(ValueError, match=r"unknown loss 'vgg', known are l1, l2, nmse, ssim, .*, ufloss"):
        make_loss({"vgg": 1.0})
    with pytest.raises(ValueError, match="unknown loss 'vgg'"):
        make_loss({"l1": 1.0}, settings={"vgg": {}})
    with pytest.raises(ValueError, match="settings are for 'ms_ssim', which has no weight"):
        make_loss({"l1": 1.0}, settings={"ms_ssim": {"num_scales": 2}})
    with pytest.raises(ValueError, match="'ufloss' needs feature_net"):
        make_loss({"ufloss": 1.0})
    with pytest.raises(ValueError, match="'perceptual' needs vgg"):
        make_loss({"perceptual": 1.0})
    for weight in (-1.0, math.nan, math.inf, "-1", None, LinearRamp(0, -1, 0, 2)):
        with pytest.raises(ValueError, match="weight of 'l2' must be a number >= 0"):
            make_loss({"l2": weight})
    for first, last in ((3, 3), (5, 2), (-1, 2)):
        with pytest.raises(ValueError, match="ramp of 'l2' must begin"):
            make_loss({"l2": LinearRamp(0, 1, first, last)})
    with pytest.raises(ValueError, match="weights must name the terms"):
        WeightedLoss({"l2": L2Loss()}, {})
    with pytest.raises(ValueError, match="grad_norms_every must be at least 1"):
        make_loss({"l2": 1.0}, grad_norms_every=0)


WEIGHTS = {"adversarial": 0.5, "feature_matching": 0.5, "perceptual": 1.0, "penalty": 0.1}


IMAGE = torch.ones(1, 1, 8, 8)


def values_of(*values: float) -> dict[str, torch.Tensor]:
    return {name: torch.tensor(value, requires_grad=True) for name, value in zip(WEIGHTS, values, strict=True)}


def test_each_term_is_its_weight_in_the_first_step_and_relative_to_it_later() -> None:
    objective = WeightedLoss({}, WEIGHTS, normalize=True)
    assert float(objective(IMAGE, IMAGE, values=values_of(0.7, 40.0, 3e-5, 900.0))) == pytest.approx(2.1, rel=1e-6)
    assert float(1 / objective.factors["feature_matching"]) == pytest.approx(40.0)
    later = objective(IMAGE, IMAGE, values=values_of(1.4, 40.0, 3e-5, 0.0))
    assert float(later) == pytest.approx(1.0 + 0.5 + 1.0, rel=1e-6)


def test_gradient_is_that_of_the_weighted_values_of() -> None:
    objective, values = WeightedLoss({}, WEIGHTS, normalize=True), values_of(0.7, 40.0, 3e-5, 900.0)
    objective(IMAGE, IMAGE, values=values).backward()
    for name, value in values.items():
        assert float(value.grad) == pytest.approx(WEIGHTS[name] / float(value), rel=1e-5)


def test_factors_are_state_and_are_not_set_in_validation() -> None:
    objective = WeightedLoss({}, WEIGHTS, normalize=True).eval()
    assert float(objective(IMAGE, IMAGE, values=values_of(1.0, 1.0, 1.0, 1.0))) == pytest.approx(2.1)
    assert float(objective(IMAGE, IMAGE, values=values_of(2.0, 2.0, 2.0, 2.0))) == pytest.approx(
        4.2
    )  # no factors yet: as they are
    objective.train()
    objective(IMAGE, IMAGE, values=values_of(0.7, 40.0, 3e-5, 900.0))
    other = WeightedLoss({}, WEIGHTS, normalize=True)
    other.load_state_dict(objective.state_dict())
    assert float(other(IMAGE, IMAGE, values=values_of(0.7, 40.0, 3e-5, 900.0))) == pytest.approx(2.1)
    assert float(other(IMAGE, IMAGE, values=values_of(1.4, 80.0, 6e-5, 1800.0))) == pytest.approx(4.2)


def test_without_normalization_it_is_the_weighted_sum() -> None:
    objective = WeightedLoss({}, WEIGHTS)
    assert float(objective(IMAGE, IMAGE, values=values_of(2.0, 4.0, 3.0, 10.0))) == pytest.approx(1 + 2 + 3 + 1)
    assert not objective.factors and not objective.state_dict()


@pytest.mark.parametrize("value", [0.0, math.nan, math.inf])
def test_a_first_value_that_cannot_be_a_unit(value: float) -> None:
    with pytest.raises(ValueError, match="feature_matching cannot be normalized"):
        WeightedLoss({}, WEIGHTS, normalize=True)(IMAGE, IMAGE, values=values_of(1.0, value, 1.0, 1.0))


def test_bad_weights_and_values() -> None:
    with pytest.raises(ValueError, match="weights must name the terms"):
        WeightedLoss({}, {})
    with pytest.raises(ValueError, match="'penalty' must be a number >= 0"):
        WeightedLoss({}, {"penalty": -1.0})
    with pytest.raises(ValueError, match="values must be named"):
        WeightedLoss({}, WEIGHTS)(IMAGE, IMAGE, values={"adversarial": torch.tensor(1.0)})


def test_values_and_losses_in_one_sum_in_the_order_of_the_weights() -> None:
    output, target, _ = pair()
    loss = WeightedLoss({"l2": L2Loss()}, {"penalty": 0.1, "l2": "0:2@0-4"})
    value = torch.tensor(3.0, requires_grad=True)
    loss.set_epoch(2)
    torch.testing.assert_close(loss(output, target, values={"penalty": value}), 0.3 + l2_loss(output, target))
    assert list(loss.last_terms) == ["penalty", "l2"]


def test_weights_are_read_from_text() -> None:
    texts = ["l1", "ssim=0.5", "ufloss=0:1.5@5-20", "edge=auto", "hfen=auto:0.3", "dssim=auto:0:2@1-3"]
    weights = parse_weights(texts, names=LOSS_NAMES)
    assert weights == {
        **{"l1": 1.0, "ssim": 0.5, "ufloss": LinearRamp(0.0, 1.5, 5, 20)},
        **{"edge": AutoWeight(), "hfen": AutoWeight(0.3), "dssim": AutoWeight(LinearRamp(0.0, 2.0, 1, 3))},
    }
    assert parse_weights([f"{name}={weight}" for name, weight in weights.items()]) == weights
    for text, message in (
        ("vgg=1", r"unknown name 'vgg' in 'vgg=1', known are l1, "),
        ("l1=a", r"'l1' must be a number, FROM:TO@EPOCH-EPOCH or auto, got 'a'"),
        ("l1=1_0", "must be a number, "),
        ("l1=", "must be a number, "),
        ("l1=autos", "must be a number, "),
        ("l1=auto:-1", "must be a number >= 0"),
        ("l1=auto:0:1@5-5", "end in a later epoch, got 5-5"),
        ("l1=nan", "must be a number >= 0"),
        ("l1=-1", "must be a number >= 0"),
        ("l1=0:1@5-5", "end in a later epoch, got 5-5"),
    ):
        with pytest.raises(ValueError, match=message):
            parse_weights([text], names=LOSS_NAMES)
    with pytest.raises(ValueError, match="'l1' is given twice"):
        parse_weights(["l1", "l1=2"])
