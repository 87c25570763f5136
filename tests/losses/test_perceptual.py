import copy

import pytest
import torch
import torchvision
from torch import nn

from fastmri_ufloss.losses.perceptual import PerceptualLoss, perceptual_loss
from fastmri_ufloss.models import VGGFeatures

KINDS = ["complex", "magnitude"]


@pytest.fixture(scope="module")
def vgg():
    torch.manual_seed(0)
    return VGGFeatures().requires_grad_(False)


def image(kind="complex", batch=2, rows=32, cols=30, seed=0, dtype=torch.complex64):
    x = torch.randn(batch, 1, rows, cols, dtype=dtype, generator=torch.Generator().manual_seed(seed))
    return x if kind == "complex" else x.abs()


def by_hand(features, output, target):
    """The equation image by image, with torchvision's normalization."""
    normalize = torchvision.transforms.Normalize(mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225])
    values = []
    for x, t in zip(output, target, strict=True):
        parts = ((x.real, t.real), (x.imag, t.imag)) if x.is_complex() else ((x, t),)
        for pair in parts:
            scaled = [z / t.abs().max() for z in pair]
            if x.is_complex():
                scaled = [(z + 1) / 2 for z in scaled]
            f, g = (features(normalize(z.repeat(3, 1, 1))[None]) for z in scaled)
            values.append((f - g).square().mean())
    return torch.stack(values).mean()


@pytest.mark.parametrize("kind", KINDS)
def test_agrees_with_the_layers_of_torchvision(vgg, kind):
    with torch.device("meta"):
        features = torchvision.models.vgg16(weights=None).features[:9]
    features = features.to_empty(device="cpu")
    features.load_state_dict({name.removeprefix("features."): v for name, v in vgg.state_dict().items()})
    output, target = 3e-5 * image(kind), 1e-5 * image(kind, seed=1)
    expected = by_hand(features, output, target)
    assert expected.item() > 0.01
    torch.testing.assert_close(perceptual_loss(vgg, output, target), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_agrees_with_piq(vgg, kind):
    piq = pytest.importorskip("piq")
    output, target = image(kind, batch=1, seed=1), image(kind, batch=1)
    output = 0.5 * output / output.abs().max()  # piq takes no values below 0
    target = target / target.abs().max()
    # piq takes the mean over the pixels of a channel and then the sum over the channels
    content = piq.ContentLoss(copy.deepcopy(vgg.features), layers=["8"])
    if kind == "complex":
        pairs = [((output.real + 1) / 2, (target.real + 1) / 2), ((output.imag + 1) / 2, (target.imag + 1) / 2)]
    else:
        pairs = [(output, target)]
    values = [content(x.repeat(1, 3, 1, 1), y.repeat(1, 3, 1, 1)) / 128 for x, y in pairs]
    torch.testing.assert_close(perceptual_loss(vgg, output, target), sum(values) / len(values), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_equal_images_give_exactly_zero_and_no_gradient(vgg, kind):
    target = 1e-4 * image(kind)
    output = target.clone().requires_grad_()
    value = PerceptualLoss(vgg)(output, target)
    value.backward()
    assert value.item() == 0.0
    assert float(output.grad.abs().max()) == 0.0


def test_vgg19_to_its_last_block():
    torch.manual_seed(0)
    loss = PerceptualLoss(VGGFeatures("vgg19"))
    output, target = image("magnitude", 1).requires_grad_(), image("magnitude", 1, seed=1)
    value = loss(output, target)
    value.backward()
    assert value.item() > 0
    assert 0 < float(output.grad.abs().max()) < float("inf")
    assert loss(target, target).item() == 0.0
    with pytest.raises(ValueError, match="at least 16x16 pixels for relu5_4 of vgg19, got 15x30"):
        loss(target[:, :, :15], target[:, :, :15])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("constant", [0.0, 1e-4])
def test_empty_and_constant_images_have_finite_values_and_gradients(vgg, kind, constant):
    some = image(kind)
    flat = torch.full_like(some, constant)
    for output, target in ((flat, some), (some, flat), (flat, flat)):
        output = output.clone().requires_grad_()
        value = perceptual_loss(vgg, output, target)
        value.backward()
        assert value.item() >= 0
        assert bool(value.isfinite())
        assert bool(output.grad.abs().isfinite().all())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("factor", [1e-9, 1e-4, 1e3])
def test_the_unit_of_the_images_does_not_matter(vgg, kind, factor):
    output, target = image(kind), image(kind, seed=1)
    expected = perceptual_loss(vgg, output, target)
    torch.testing.assert_close(perceptual_loss(vgg, factor * output, factor * target), expected, rtol=1e-4, atol=0)
    # but it is that of the target
    assert not torch.isclose(perceptual_loss(vgg, 2 * output, target), expected, rtol=1e-2)


def test_both_parts_have_one_scale(vgg):
    # the noise of an empty imaginary part counts for little; scaled by itself it would count like the image
    real, noise = image("magnitude"), 1e-4 * image("magnitude", seed=1)
    target, output = torch.complex(real, noise), torch.complex(real, -noise)
    other = torch.complex(image("magnitude", seed=2), noise)
    assert perceptual_loss(vgg, output, target) < 1e-5 * perceptual_loss(vgg, other, target)


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_is_the_mean_of_its_images(vgg, kind):
    output, target = image(kind), image(kind, seed=1)
    target[1] *= 100
    singles = [perceptual_loss(vgg, output[i, None], target[i, None]) for i in range(2)]
    torch.testing.assert_close(perceptual_loss(vgg, output, target), sum(singles) / 2)
    torch.testing.assert_close(perceptual_loss(vgg, output, target, reduction="none"), torch.stack(singles))
    torch.testing.assert_close(PerceptualLoss(vgg)(output, target, torch.ones(2)), sum(singles) / 2)


@pytest.mark.parametrize("kind", KINDS)
def test_gradient_is_that_of_finite_differences(kind):
    torch.manual_seed(0)
    vgg = VGGFeatures().double()
    output = image(kind, 2, 6, 5, dtype=torch.complex128).requires_grad_()
    target = image(kind, 2, 6, 5, seed=1, dtype=torch.complex128)
    assert perceptual_loss(vgg, output, target).dtype == torch.float64
    assert torch.autograd.gradcheck(lambda x: perceptual_loss(vgg, x, target), output, fast_mode=True)
    # a float32 network sees images in float32
    assert perceptual_loss(vgg.float(), output, target).dtype == torch.float32


def test_no_gradient_reaches_target_or_network_and_the_network_stays():
    loss = PerceptualLoss(VGGFeatures().train())
    parent = nn.Sequential(nn.Conv2d(1, 1, 1), loss).train()
    assert parent.training and loss.training and not loss.vgg.training
    assert loss.train() is loss
    before = copy.deepcopy(loss.vgg.state_dict())
    output, target = image("magnitude"), image("magnitude", seed=1).requires_grad_()
    optimizer = torch.optim.SGD(parent.parameters(), lr=0.1, weight_decay=0.1)
    loss(parent[0](output), target).backward()
    optimizer.step()
    assert float(parent[0].weight.grad.abs().max()) > 0
    assert target.grad is None
    assert all(p.grad is None and not p.requires_grad for p in loss.parameters())
    assert all(torch.equal(v, before[k]) for k, v in loss.vgg.state_dict().items())


def test_the_network_is_not_in_the_state_dict_and_it_loads_strictly():
    class Parent(nn.Module):
        def __init__(self):
            super().__init__()
            self.model = nn.Linear(2, 2)
            self.loss = PerceptualLoss(VGGFeatures(layer="relu1_1"))

    first, second = Parent(), Parent()
    mine = copy.deepcopy(second.loss.vgg.state_dict())
    state = first.state_dict()
    assert list(state) == ["model.weight", "model.bias"]
    assert first.loss.state_dict() == {}
    foreign = {f"loss.vgg.{name}": value for name, value in first.loss.vgg.state_dict().items()}
    for given in (state, {**state, **foreign}):
        second.load_state_dict(given)
        assert torch.equal(second.model.weight, first.model.weight)
        assert all(torch.equal(value, mine[name]) for name, value in second.loss.vgg.state_dict().items())
    with pytest.raises(RuntimeError, match="Unexpected key"):
        second.load_state_dict({**state, "loss.other": torch.zeros(1)})


def test_descent_lowers_the_loss(vgg):
    loss = PerceptualLoss(vgg)
    target = image("magnitude", 1, 16, 16)
    x = image("magnitude", 1, 16, 16, seed=1).requires_grad_()
    optimizer = torch.optim.Adam([x], lr=0.05)
    values = []
    for _ in range(40):
        optimizer.zero_grad()
        value = loss(x, target)
        value.backward()
        optimizer.step()
        values.append(value.item())
    assert values[-1] < 0.3 * values[0]


@pytest.mark.parametrize("kind", KINDS)
def test_full_precision_under_autocast_and_for_half_images(vgg, kind):
    output, target = image(kind).requires_grad_(), image(kind, seed=1)
    exact = perceptual_loss(vgg, output, target)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = perceptual_loss(vgg, output, target)
    torch.testing.assert_close(value, exact)
    if kind == "magnitude":
        half = perceptual_loss(vgg, output.half(), target.half())
        assert half.dtype == torch.float32
        torch.testing.assert_close(half, exact, rtol=0.02, atol=0)


@pytest.mark.parametrize("where", ["output", "target"])
def test_one_nan_is_not_hidden(vgg, where):
    pair = {"output": image(), "target": image(seed=1)}
    pair[where][1, 0, 20, 20] = torch.nan
    values = perceptual_loss(vgg, **pair, reduction="none")
    assert bool(values[0].isfinite())
    assert bool(values[1].isnan())


def test_bad_images(vgg):
    good = image()
    with pytest.raises(ValueError, match=r"output must have shape \(batch, 1, rows, cols\)"):
        perceptual_loss(vgg, good[:, 0], good[:, 0])
    with pytest.raises(ValueError, match="target must have the shape of output"):
        perceptual_loss(vgg, good, good[:1])
    with pytest.raises(ValueError, match="both be complex or both be magnitudes"):
        perceptual_loss(vgg, good.abs(), good)
    with pytest.raises(ValueError, match="at least 2x2 pixels"):
        perceptual_loss(vgg, good[:, :, :1], good[:, :, :1])
    with pytest.raises(ValueError, match="reduction must be 'mean' or 'none', got 'sum'"):
        perceptual_loss(vgg, good, good, reduction="sum")
