"""Descent on UFLoss alone."""

import pytest
import torch
from feature_nets import SmallFeatureNet
from helpers import randn_complex

from fastmri_ufloss.losses.ufloss import ufloss_per_image
from fastmri_ufloss.mri.intensity import image_scale
from fastmri_ufloss.report.figures.noise_and_blur import Descent, blurred, descend, summarize_descent

SHORT = {"num_steps": 12, "stride": 2, "measure_stride": 2, "measure_every": 5}


@pytest.mark.parametrize("in_chans", [1, 2])
@pytest.mark.parametrize(("optimizer", "lr"), [("sgd", 2e-2), ("adam", 2e-2)])
def test_image_comes_nearer(in_chans: int, optimizer: str, lr: float) -> None:
    target = randn_complex(16, 14)
    target = target if in_chans == 2 else target.abs()
    net, start = SmallFeatureNet(in_chans), blurred(target[None], 2.0)[0]
    found = descend(net, start, target, optimizer=optimizer, lr=lr, num_images=3, **SHORT)
    assert found.steps == [0, 3, 5, 10, 12] and list(found.images) == [0, 3, 12]
    assert found.ufloss[-1] < 0.8 * found.ufloss[0] and found.nrmse[-1] < found.nrmse[0]
    torch.testing.assert_close(found.images[0], start)
    for step, image in found.images.items():
        assert image.dtype == target.dtype
        at = found.steps.index(step)
        expected = ufloss_per_image(net, image[None, None], target[None, None], stride=2)
        assert found.ufloss[at] == pytest.approx(float(expected), rel=1e-4)
        assert found.nrmse[at] == pytest.approx(float((image - target).norm() / target.norm()), rel=1e-4)


def test_gradient_descent_is_that_of_the_paper() -> None:
    target = randn_complex(16, 14)
    net, start = SmallFeatureNet(), blurred(target[None], 2.0)[0]
    # a stride of 1 has one shift only
    settings = {"num_steps": 1, "stride": 1, "patches_per_step": 10**6, "lr": 1e-2}
    found = descend(net, start, target, **settings).images[1]
    scale = float(image_scale(target[None]))
    x = torch.view_as_real(start / scale).requires_grad_()
    ufloss_per_image(net, torch.view_as_complex(x)[None, None], target[None, None] / scale, stride=1).backward()
    expected = torch.view_as_complex(x - 1e-2 * target.numel() * x.grad) * scale
    torch.testing.assert_close(found, expected.detach())


def test_same_seed_same_descent_and_the_unit_does_not_matter() -> None:
    target = randn_complex(16, 14)
    net, start = SmallFeatureNet(), blurred(target[None], 2.0)[0]
    state = torch.get_rng_state()
    first, same, other = (descend(net, start, target, patches_per_step=3, seed=s, **SHORT) for s in (1, 1, 2))
    assert torch.equal(state, torch.get_rng_state())
    assert first.ufloss == same.ufloss != other.ufloss
    small = descend(net, 1e-4 * start, 1e-4 * target, patches_per_step=3, seed=1, **SHORT)
    assert small.ufloss == pytest.approx(first.ufloss, rel=1e-3)
    whole = descend(net, start, target, patches_per_step=10**6, seed=1, **SHORT)
    assert whole.ufloss != first.ufloss


def test_descent_is_summarized() -> None:
    falls = summarize_descent(Descent("sgd", [0, 1, 2], [0.4, 0.2, 0.1], [1.0, 0.9, 0.8], {}))
    assert falls == {
        "ufloss_ratio": 0.25, "nrmse_ratio": 0.8, "monotone": True, "nrmse_monotone": True, "largest_rise": 0.0
    }  # fmt: skip
    rises = summarize_descent(Descent("sgd", [0, 1, 2], [0.4, 0.1, 0.2], [1.0, 0.9, 0.95], {}))
    assert not rises["monotone"] and not rises["nrmse_monotone"] and rises["largest_rise"] == pytest.approx(0.25)


def test_bad_input_is_named() -> None:
    target = randn_complex(16, 14)
    net, start = SmallFeatureNet(), blurred(target[None], 2.0)[0]
    with pytest.raises(ValueError, match="output and target"):
        descend(net, start.abs(), target)
    with pytest.raises(ValueError, match="start must differ from target"):
        descend(net, target, target)
    with pytest.raises(ValueError, match="num_steps must be at least 1, got 0"):
        descend(net, start, target, num_steps=0)
    with pytest.raises(ValueError, match="num_images must be at least 2, got 1"):
        descend(net, start, target, num_images=1)
    with pytest.raises(ValueError, match="optimizer must be one of sgd, adam, got 'lbfgs'"):
        descend(net, start, target, optimizer="lbfgs")
    with pytest.raises(ValueError, match=r"lr must be positive, got 0\.0"):
        descend(net, start, target, lr=0.0)
