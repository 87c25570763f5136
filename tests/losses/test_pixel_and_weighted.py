import fastmri
import pytest
import torch
from helpers import randn_complex
from torch import nn

from fastmri_ufloss.losses import L1Loss, L2Loss, SSIMLoss, UFLoss, WeightedLoss, make_loss


class TinyNet(nn.Module):
    """A feature network in shape: unit vectors of patches."""

    in_chans, patch_size = 2, 32

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 8, stride=8)

    def forward(self, patches: torch.Tensor) -> torch.Tensor:
        return nn.functional.normalize(self.conv(patches).flatten(1), dim=1)


def pair(kind: str, batch: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    target = randn_complex(batch, 1, 40, 36, seed=1) + 1
    output = target + 0.1 * randn_complex(batch, 1, 40, 36, seed=2)
    return (output, target) if kind == "complex" else (output.abs(), target.abs())


ALL = [L1Loss(), L2Loss(), SSIMLoss()]


@pytest.mark.parametrize("loss", ALL, ids=lambda loss: type(loss).__name__)
@pytest.mark.parametrize("kind", ["complex", "magnitude"])
def test_contract(loss: nn.Module, kind: str) -> None:
    output, target = pair(kind)
    data_range = target.abs().amax(dim=(1, 2, 3))
    value = loss(output, target, data_range)
    assert value.ndim == 0 and float(value) > 0
    # zero for equal images
    assert float(loss(target, target, data_range)) == pytest.approx(0, abs=1e-6)
    # raw and normalised intensities give the same
    for scale in (1e-5, 1e3):
        scaled = loss(output * scale, target * scale, data_range * scale)
        assert float(scaled) == pytest.approx(float(value), rel=1e-3)
    # the weight does not depend on the size of the batch
    singles = [loss(output[i : i + 1], target[i : i + 1], data_range[i : i + 1]) for i in range(2)]
    assert float(value) == pytest.approx(float(torch.stack(singles).mean()), rel=1e-5)
    # without a data range it is the target's
    assert float(loss(output, target)) == pytest.approx(float(value), rel=1e-5)


@pytest.mark.parametrize("loss", ALL, ids=lambda loss: type(loss).__name__)
def test_bad_images_are_named(loss: nn.Module) -> None:
    output, target = pair("complex")
    with pytest.raises(ValueError, match="must both be complex"):
        loss(output, target.abs(), torch.ones(2))
    with pytest.raises(ValueError, match="target must have the shape of output"):
        loss(output, target[:, :, :-1], torch.ones(2))
    with pytest.raises(ValueError, match="output must have shape"):
        loss(output[:, 0], target[:, 0], torch.ones(2))


@pytest.mark.parametrize("loss", ALL, ids=lambda loss: type(loss).__name__)
def test_constant_and_zero_targets_have_finite_values_and_gradients(loss: nn.Module) -> None:
    for value in (0.0, 1.0):
        output = pair("magnitude")[0].requires_grad_()
        result = loss(output, torch.full_like(output, value), None)
        result.backward()
        assert result.isfinite() and output.grad.isfinite().all()


def test_l2_and_l1_are_means_at_the_scale_of_the_target() -> None:
    output, target = pair("complex", batch=1)
    difference = torch.view_as_real((output - target) / target.abs().flatten().kthvalue(1368).values)
    assert float(L2Loss()(output, target)) == pytest.approx(float(difference.square().mean()), rel=1e-5)
    assert float(L1Loss()(output, target)) == pytest.approx(float(difference.abs().mean()), rel=1e-5)


def test_ssim_is_fastmris() -> None:
    output, target = pair("magnitude")
    data_range = target.amax(dim=(1, 2, 3))
    expected = fastmri.SSIMLoss()(output, target, data_range=data_range)
    torch.testing.assert_close(SSIMLoss()(output, target, data_range), expected, rtol=1e-4, atol=1e-6)


def test_weighted_sum_and_its_terms() -> None:
    output, target = pair("complex")
    net = TinyNet()
    loss = make_loss({"l2": 2.0, "ssim": 0.5, "ufloss": 1.5}, feature_net=net).eval()
    total = loss(output, target)
    assert list(loss.last_terms) == ["l2", "ssim", "ufloss"]
    expected = (
        2 * L2Loss()(output, target) + 0.5 * SSIMLoss()(output, target) + 1.5 * UFLoss(net).eval()(output, target)
    )
    torch.testing.assert_close(total, expected)


def test_state_dict_has_no_feature_network() -> None:
    loss = make_loss({"l2": 1.0, "ufloss": 1.5}, feature_net=TinyNet())
    parent = nn.ModuleDict({"model": nn.Linear(2, 2), "loss": loss})
    assert not [name for name in parent.state_dict() if "feature_net" in name]
    parent.load_state_dict(parent.state_dict())


def test_bad_names_and_weights_are_named() -> None:
    with pytest.raises(ValueError, match="unknown loss 'vgg', known are l1, l2, ssim, ufloss"):
        make_loss({"vgg": 1.0})
    with pytest.raises(ValueError, match="'ufloss' needs feature_net"):
        make_loss({"ufloss": 1.0})
    for weight in (-1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="weight of loss 'l2' must be a number >= 0"):
            make_loss({"l2": weight})
    with pytest.raises(ValueError, match="weights must name the terms"):
        WeightedLoss({"l2": L2Loss()}, {})
