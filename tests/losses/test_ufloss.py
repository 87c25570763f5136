import copy
import math

import pytest
import torch
from torch import nn

from fastmri_ufloss.losses.ufloss import UFLoss, _cut, _CutOnCPU, patch_features, ufloss_per_image
from fastmri_ufloss.models.feature_net import PatchFeatureNet
from fastmri_ufloss.mri.intensity import image_scale, to_patch_channels


class SmallNet(nn.Module):
    """A feature network in miniature, with a batch norm that would notice training mode."""

    def __init__(self, in_chans=2, patch_size=8):
        super().__init__()
        torch.manual_seed(0)
        self.in_chans = in_chans
        self.patch_size = patch_size
        self.conv = nn.Conv2d(in_chans, 4, 3, stride=2)
        self.norm = nn.BatchNorm2d(4)
        self.linear = nn.Linear(4, 6)
        self.largest_batch = 0

    def forward(self, patches):
        self.largest_batch = max(self.largest_batch, len(patches))
        x = torch.tanh(self.norm(self.conv(patches))).square().mean(dim=(2, 3))
        return nn.functional.normalize(self.linear(x), dim=1)


def narrow(in_chans=2, patch_size=40):
    """A network that sees all patches of a grid at once, whose batch norm is not trivial."""
    torch.manual_seed(0)
    net = PatchFeatureNet(in_chans, num_features=6, patch_size=patch_size, architecture="narrow", width=4)
    net(torch.randn(8, in_chans, patch_size, patch_size))
    return net.eval()


def images(batch=2, rows=23, cols=20, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, 1, rows, cols, dtype=torch.complex64, generator=generator)


def reference(net, output, target, stride, shift=(0, 0)):
    """The equation, patch by patch, on rolled images."""
    values = []
    for x, y in zip(output, target, strict=True):
        scale = y.abs().flatten().sort().values[math.ceil(y.numel() * 95 / 100) - 1]
        x, y = (torch.roll(z / scale, shift, dims=(-2, -1)) for z in (x, y))
        p = net.patch_size
        for r in range(0, x.shape[-2] - p + 1, stride):
            for c in range(0, x.shape[-1] - p + 1, stride):
                f, g = (net(to_patch_channels(z[:, r : r + p, c : c + p], net.in_chans)) for z in (x, y))
                values.append((f - g).square().sum())
    return torch.stack(values).mean()


@pytest.mark.parametrize("in_chans", [1, 2])
def test_eval_mode_is_the_equation_over_the_whole_grid(in_chans):
    loss = UFLoss(SmallNet(in_chans), stride=3).eval()
    output, target = images(), images(seed=1)
    if in_chans == 1:
        output, target = output.abs(), target.abs()
    expected = reference(loss.feature_net, output, target, 3)
    assert 0 < float(expected) < 4
    torch.testing.assert_close(loss(output, target), expected)
    torch.testing.assert_close(loss(output, target, data_range=torch.tensor([7.0])), expected)


@pytest.mark.parametrize("stride", [4, 8, 5])
@pytest.mark.parametrize("in_chans", [1, 2])
def test_a_network_that_sees_the_grid_at_once_gives_the_equation(in_chans, stride):
    loss = UFLoss(narrow(in_chans), stride=stride)
    output, target = images(rows=58, cols=53), images(rows=58, cols=53, seed=1)
    if in_chans == 1:
        output, target = output.abs(), target.abs()
    expected = reference(loss.feature_net, output, target, stride)
    assert 0 < float(expected) < 4
    torch.testing.assert_close(loss.eval()(output, target), expected)
    loss = UFLoss(loss.feature_net, stride=stride, patches_per_step=10**6)
    torch.manual_seed(5)
    value = loss(output.requires_grad_(), target)
    torch.manual_seed(5)
    shift = torch.randint(stride, (2,)).tolist()
    assert any(shift)
    expected = reference(loss.feature_net, output, target, stride, shift)
    torch.testing.assert_close(value, expected)
    gradients = [torch.autograd.grad(each, output)[0] for each in (value, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-7)


def test_inner_layers_add_the_distances_of_their_pixels():
    net = narrow()
    output, target = images(rows=52, cols=60), images(rows=52, cols=60, seed=1)
    plain, loss = UFLoss(net).eval(), UFLoss(net, inner_layers=True).eval()
    scale = image_scale(target).reshape(-1, 1, 1, 1)
    expected = plain(output, target)
    maps = [to_patch_channels((image / scale)[:, 0], 2) for image in (output, target)]
    maps = [torch.relu(net.network.stem(image)) for image in maps]
    for block in net.network.blocks[:-1]:
        maps = [block(image) for image in maps]
        x, t = (torch.nn.functional.normalize(image, dim=1) for image in maps)
        expected = expected + (x - t).square().sum(dim=1).mean()
    torch.testing.assert_close(loss(output, target), expected)
    assert loss(target, target) == 0 and loss(output, target) > plain(output, target)
    output.requires_grad_()
    loss.train()(output, target).backward()
    assert torch.view_as_real(output.grad).isfinite().all() and output.grad.abs().max() > 0
    few = UFLoss(net, inner_layers=True, patches_per_step=2)
    torch.manual_seed(0)
    assert few(output, target) > 0
    with pytest.raises(ValueError, match="feature_net must be of the architecture 'narrow' for inner_layers"):
        UFLoss(PatchFeatureNet(2, patch_size=40), inner_layers=True)
    with pytest.raises(ValueError, match="stride must be a multiple of 4 for inner_layers, got 3"):
        UFLoss(net, stride=3, inner_layers=True)


def test_grid_and_number_of_patches_are_those_of_the_network_unless_given():
    class Counting(SmallNet):
        def forward(self, patches):
            self.largest_batch = max(self.largest_batch, len(patches))
            return super().forward(patches)

    net = Counting()
    assert UFLoss(net).stride == 5 and UFLoss(narrow()).stride == 4
    output, target = images(batch=1, rows=80, cols=80), images(batch=1, rows=80, cols=80, seed=1)
    UFLoss(net)(output.requires_grad_(), target)
    assert net.largest_batch == 64
    # all patches without patches_per_step; with it, as many of the same places
    loss, few = UFLoss(narrow()), UFLoss(narrow(), patches_per_step=3)
    torch.manual_seed(3)
    shift = torch.randint(4, (2,))
    chosen = torch.randperm(121)[:3]
    rolled = [torch.roll(image, shift.tolist(), dims=(-2, -1)) for image in (output.detach(), target)]
    scale = image_scale(target)
    features = [patch_features(loss.feature_net, image, scale)[0] for image in rolled]
    distances = (features[0] - features[1]).square().sum(dim=1)
    assert distances.shape == (121,)
    for each, expected in ((loss, distances.mean()), (few, distances[chosen].mean())):
        torch.manual_seed(3)
        torch.testing.assert_close(each(output, target).detach(), expected)


def test_training_mode_rolls_both_images_by_one_random_shift():
    loss = UFLoss(SmallNet(), stride=3, patches_per_step=10**6)
    output, target = images(), images(seed=1)
    torch.manual_seed(5)
    value = loss(output, target)
    torch.manual_seed(5)
    shift = torch.randint(3, (2,)).tolist()
    torch.testing.assert_close(value, reference(loss.feature_net, output, target, 3, shift))


def test_a_step_is_fixed_by_the_seed_and_unbiased():
    net = SmallNet()
    output, target = images(batch=1), images(batch=1, seed=1)
    few, every = UFLoss(net, stride=2, patches_per_step=4), UFLoss(net, stride=2, patches_per_step=10**6)
    torch.manual_seed(1)
    first = few(output, target)
    torch.manual_seed(1)
    assert torch.equal(few(output, target), first)
    assert not torch.equal(few(output, target), first)
    expected = torch.stack([reference(net, output, target, 2, (r, c)) for r in (0, 1) for c in (0, 1)])
    for loss, draws in ((few, 1200), (every, 200)):
        values = torch.stack([loss(output, target) for _ in range(draws)])
        error = values.std() / draws**0.5
        assert abs(values.mean() - expected.mean()) < 4 * error


def test_each_step_draws_the_same_distinct_places_for_all_images():
    output, target = images(batch=1), images(batch=1, seed=1)
    loss = UFLoss(SmallNet(), stride=3, patches_per_step=5)
    torch.manual_seed(3)
    one = loss(output, target)
    torch.manual_seed(3)
    two = loss(output.repeat(2, 1, 1, 1), target.repeat(2, 1, 1, 1))
    torch.testing.assert_close(one, two)
    # all places of the grid, drawn without replacement, are the whole grid
    whole = UFLoss(loss.feature_net, stride=3, patches_per_step=len(_grid(output, 3)))
    every = UFLoss(loss.feature_net, stride=3, patches_per_step=10**6)
    torch.manual_seed(4)
    value = whole(output, target)
    torch.manual_seed(4)
    torch.testing.assert_close(every(output, target), value)


def _grid(image, stride, size=8):
    rows, cols = image.shape[-2:]
    return [(r, c) for r in range(0, rows - size + 1, stride) for c in range(0, cols - size + 1, stride)]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("architecture", ["resnet18", "narrow"])
def test_equal_images_give_exactly_zero_and_no_gradient(training, architecture):
    torch.manual_seed(0)
    net = PatchFeatureNet(2, num_features=16, patch_size=39, architecture=architecture)
    loss = UFLoss(net, stride=4, patches_per_step=6, chunk_size=8).train(training)
    target = images(rows=41, cols=44) * 1e-4
    output = target.clone().requires_grad_()
    value = loss(output, target)
    value.backward()
    assert value.item() == 0.0
    assert float(output.grad.abs().max()) == 0.0


@pytest.mark.parametrize("factor", [1e-9, 1e-4, 1e5])
def test_the_unit_of_the_images_does_not_matter(factor):
    loss = UFLoss(SmallNet()).eval()
    output, target = images(), images(seed=1)
    torch.testing.assert_close(loss(factor * output, factor * target), loss(output, target))


def test_target_alone_sets_the_scale():
    loss = UFLoss(SmallNet()).eval()
    output, target = images(), images(seed=1)
    assert not torch.allclose(loss(2 * output, target), loss(output, target))


def test_a_nearly_empty_target_is_no_division_by_zero():
    loss = UFLoss(SmallNet()).eval()
    target = torch.zeros(1, 1, 20, 20, dtype=torch.complex64)
    assert bool(loss(images(1, 20, 20), target).isfinite())
    target[0, 0, 9, 9] = 1e-4
    assert bool(loss(1e-4 * images(1, 20, 20), target).isfinite())


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("value", [0.0, 1e-4])
@pytest.mark.parametrize("in_chans", [1, 2])
def test_empty_and_constant_images_have_finite_values_and_gradients(in_chans, value, training):
    torch.manual_seed(0)
    net = PatchFeatureNet(in_chans, num_features=8, patch_size=32)
    loss = UFLoss(net, stride=6).train(training)
    constant = torch.full((1, 1, 38, 32), value, dtype=torch.complex64 if in_chans == 2 else torch.float32)
    some = images(1, 38, 32) if in_chans == 2 else images(1, 38, 32).abs()
    for output, target in ((constant, some), (some, constant), (constant, constant)):
        output = output.clone().requires_grad_()
        result = loss(output, target)
        result.backward()
        assert 0 <= result.item() <= 4
        assert bool(output.grad.abs().isfinite().all())


@pytest.mark.parametrize("training", [True, False])
def test_one_nan_in_the_output_is_not_hidden(training):
    torch.manual_seed(0)
    loss = UFLoss(PatchFeatureNet(2, num_features=8, patch_size=32), stride=4).train(training)
    output, target = images(2, 36, 36), images(2, 36, 36, seed=1)
    assert bool(loss(output, target).isfinite())
    output[1, 0, 20, 20] = torch.nan
    assert bool(loss(output, target).isnan())


def test_per_image_values_do_not_depend_on_the_batch_or_the_chunks():
    net = SmallNet().eval()
    output, target = images(3), images(3, seed=1)
    values = ufloss_per_image(net, output, target, stride=3)
    singles = [ufloss_per_image(net, output[i, None], target[i, None], stride=3) for i in range(3)]
    torch.testing.assert_close(values, torch.cat(singles))
    net.largest_batch = 0
    torch.testing.assert_close(ufloss_per_image(net, output, target, stride=3, chunk_size=7), values)
    assert net.largest_batch <= 7


@pytest.mark.parametrize(("kind", "size", "stride"), [(SmallNet, 8, 3), (narrow, 40, 4)])
def test_features_of_the_target_can_be_computed_once(kind, size, stride):
    net = kind().eval()
    output, target = images(rows=52, cols=49), images(rows=52, cols=49, seed=1)
    features = patch_features(net, target, image_scale(target), stride=stride, chunk_size=9)
    assert features.shape == (2, len(_grid(target, stride, size)), 6)
    values = ufloss_per_image(net, output, target, stride=stride, chunk_size=9, target_features=features)
    torch.testing.assert_close(values, ufloss_per_image(net, output, target, stride=stride))
    itself = ufloss_per_image(net, target, target, stride=stride, chunk_size=9, target_features=features)
    assert itself.tolist() == [0.0, 0.0]
    with pytest.raises(ValueError, match="target_features must have shape"):
        ufloss_per_image(net, output, target, stride=2 * stride, target_features=features)


def test_gradient_is_that_of_the_equation_with_and_without_recomputation():
    net = SmallNet().double().eval().requires_grad_(False)
    target = images(1, 12, 13, seed=1).to(torch.complex128)
    output = images(1, 12, 13).to(torch.complex128).requires_grad_()

    def value(x, chunk_size):
        return ufloss_per_image(net, x, target, stride=2, chunk_size=chunk_size).sum()

    assert torch.autograd.gradcheck(lambda x: value(x, 256), output)
    (stored,) = torch.autograd.grad(value(output, 256), output)
    (recomputed,) = torch.autograd.grad(value(output, 2), output)
    torch.testing.assert_close(recomputed, stored)
    (expected,) = torch.autograd.grad(reference(net, output, target, 2), output)
    torch.testing.assert_close(stored, expected)


def test_no_gradient_reaches_target_or_network_and_the_network_stays():
    loss = UFLoss(SmallNet(), patches_per_step=5)
    parent = nn.Sequential(nn.Conv2d(1, 1, 1), loss).train()
    assert parent.training and loss.training and not loss.feature_net.norm.training
    before = copy.deepcopy(loss.feature_net.state_dict())
    output, target = images().requires_grad_(), images(seed=1).requires_grad_()
    loss(output, target).backward()
    assert float(output.grad.abs().max()) > 0
    assert target.grad is None
    assert all(p.grad is None and not p.requires_grad for p in loss.parameters())
    assert all(torch.equal(v, before[k]) for k, v in loss.feature_net.state_dict().items())


def test_descent_lowers_the_loss():
    loss = UFLoss(SmallNet(), stride=2, patches_per_step=10**6)
    target = images(1, 16, 16, seed=1)
    x = torch.view_as_real(images(1, 16, 16)).clone().requires_grad_()
    optimizer = torch.optim.Adam([x], lr=0.02)
    values = []
    torch.manual_seed(0)
    for _ in range(80):
        optimizer.zero_grad()
        value = loss(torch.view_as_complex(x), target)
        value.backward()
        optimizer.step()
        values.append(value.item())
    assert values[-1] < 0.5 * values[0]


def test_the_network_is_not_in_the_state_dict_and_it_loads_strictly():
    class Parent(nn.Module):
        def __init__(self, seed):
            super().__init__()
            self.loss = UFLoss(SmallNet())
            torch.manual_seed(seed)
            self.feature_net_like = nn.Linear(2, 2)
            with torch.no_grad():
                self.loss.feature_net.conv.weight.fill_(float(seed))

    first, second = Parent(1), Parent(2)
    state = first.state_dict()
    assert list(state) == ["feature_net_like.weight", "feature_net_like.bias"]
    assert first.loss.state_dict() == {}
    second.load_state_dict(state)
    assert torch.equal(second.feature_net_like.weight, first.feature_net_like.weight)
    assert float(second.loss.feature_net.conv.weight.mean()) == 2.0
    # weights of a network are ignored, other missing or unknown keys are not
    foreign = {f"loss.feature_net.{k}": v for k, v in first.loss.feature_net.state_dict().items()}
    second.load_state_dict({**state, **foreign})
    assert float(second.loss.feature_net.conv.weight.mean()) == 2.0
    with pytest.raises(RuntimeError, match="Missing key"):
        second.load_state_dict({"feature_net_like.weight": state["feature_net_like.weight"]})
    with pytest.raises(RuntimeError, match="Unexpected key"):
        second.load_state_dict({**state, "loss.other": torch.zeros(1)})
    first.loss.load_state_dict(first.loss.state_dict())


def test_finite_and_close_under_autocast():
    torch.manual_seed(0)
    loss = UFLoss(PatchFeatureNet(2, num_features=16, patch_size=32), stride=5)
    target = images(1, 37, 37) * 1e-4
    output = target + 3e-5 * images(1, 37, 37, seed=1)
    torch.manual_seed(0)
    exact = loss(output, target)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.manual_seed(0)
        value = loss(output.requires_grad_(), target)
    value.backward()
    assert value.dtype == torch.float32
    assert bool(output.grad.abs().isfinite().all())
    torch.testing.assert_close(value, exact.detach(), rtol=0.1, atol=1e-3)


def test_number_of_patches_of_a_knee_image():
    class Counting(SmallNet):
        def forward(self, patches):
            return torch.zeros(len(patches), 1)

    net = Counting(patch_size=60).eval()
    knee = images(1, 640, 372)
    assert patch_features(net, knee, image_scale(knee)).shape == (1, 7371, 1)


@pytest.mark.parametrize("option", ["stride", "patches_per_step", "chunk_size"])
def test_settings_below_one(option):
    with pytest.raises(ValueError, match=f"{option} must be at least 1, got 0"):
        UFLoss(SmallNet(), **{option: 0})


def test_bad_images():
    loss = UFLoss(SmallNet())
    good = images()
    with pytest.raises(ValueError, match=r"patch of 8x8, got 7x20"):
        loss(good[:, :, :7], good[:, :, :7])
    with pytest.raises(ValueError, match=r"output must have shape \(batch, 1, rows, cols\)"):
        loss(good[:, 0], good[:, 0])
    with pytest.raises(ValueError, match="target must have the shape of output"):
        loss(good, good[:1])
    with pytest.raises(ValueError, match="complex for a feature network of 2 channels"):
        loss(good.abs(), good.abs())
    with pytest.raises(ValueError, match="take the magnitude"):
        UFLoss(SmallNet(1))(good, good)
    with pytest.raises(ValueError, match="feature_net must be in eval mode"):
        ufloss_per_image(SmallNet(), good, good)
    with pytest.raises(ValueError, match="stride must be at least 1, got 0"):
        ufloss_per_image(SmallNet().eval(), good, good, stride=0)
    with pytest.raises(ValueError, match=r"scale must have shape \(2,\), got \(1,\)"):
        patch_features(SmallNet().eval(), good, torch.ones(1))


def test_gradient_of_cutting_is_that_of_indexing():
    channels = torch.randn(2, 2, 9, 11, dtype=torch.float64, requires_grad=True)
    corners = torch.tensor([[0, 0], [3, 4], [8, 10], [2, 9], [8, 0], [0, 0]])  # some wrap, one comes twice
    weights = torch.randn(2, 2, len(corners), 5, 5, dtype=torch.float64)
    grads = []
    for cut in (_cut, _CutOnCPU.apply):
        patches = cut(channels, corners, 5)
        assert torch.equal(patches, _cut(channels, corners, 5))
        grads.append(torch.autograd.grad((patches * weights).sum(), channels)[0])
    torch.testing.assert_close(*grads)


def test_gradient_is_the_same_each_time_with_several_threads():
    loss = UFLoss(PatchFeatureNet(2, patch_size=32, num_features=8), stride=4).eval()
    output, target = images(1, 96, 96).requires_grad_(), images(1, 96, 96, seed=1)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        first, *others = (torch.autograd.grad(loss(output, target), output)[0] for _ in range(4))
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(first, other) for other in others)
