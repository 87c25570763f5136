import inspect

import fastmri
import pytest
import torch
from helpers import column_mask, randn_complex, smooth_maps
from torch import nn

from fastmri_ufloss.models import MoDL, RecNet, VarNet
from fastmri_ufloss.mri import SenseNormalOperator, estimate_sens_maps, sens_expand, sens_reduce
from fastmri_ufloss.mri.sense import data_consistency_step

SMALL = {"num_blocks": 2, "chans": 4}
MODES = ("hard", "soft", "cg")
all_modes = pytest.mark.parametrize("mode", MODES)


def example(
    batch: int = 2, coils: int = 4, rows: int = 24, cols: int = 28
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    maps = smooth_maps(batch, coils, rows, cols)
    if coils == 1:
        maps = torch.zeros_like(maps)
        maps[..., 0] = 1
    mask = column_mask(batch, cols, center=10)
    image = torch.view_as_real(randn_complex(batch, 1, rows, cols))
    return sens_expand(image, maps) * mask, mask, maps


def make(mode: str = "hard", **settings: object) -> RecNet:
    torch.manual_seed(0)
    return RecNet(**{**SMALL, "data_consistency": mode, **settings})  # type: ignore[arg-type]


def images_before_data_consistency(net: RecNet, block: int = -1) -> list[torch.Tensor]:
    """Filled when the net runs, with z of a block, in the unit in which the net works."""
    seen: list[torch.Tensor] = []
    net.blocks[block].register_forward_hook(lambda _, args, out: seen.append((args[0] + out).permute(0, 2, 3, 1)))
    return seen


def test_is_called_like_varnet_and_modl() -> None:
    kspace, mask, _ = example()
    varnet = VarNet(num_cascades=1, sens_chans=2, sens_pools=2, chans=2, pools=2)
    ours, theirs = make()(kspace, mask, 10), varnet(kspace, mask, 10)
    assert ours.shape == theirs.shape and ours.dtype == theirs.dtype
    assert inspect.signature(RecNet.forward) == inspect.signature(MoDL.forward)


def test_magnitude_is_that_of_the_complex_result() -> None:
    kspace, mask, maps = example()
    image = make()(kspace, mask, sens_maps=maps, return_complex=True)
    assert image.is_complex()
    torch.testing.assert_close(make()(kspace, mask, sens_maps=maps), image.abs())


@all_modes
def test_each_set_of_maps_has_an_image(mode: str) -> None:
    """With a second set of zeros the first image is that of a single set."""
    kspace, mask, maps = example()
    two = torch.stack([maps, torch.zeros_like(maps)], dim=1)
    image = make(mode)(kspace, mask, sens_maps=two, return_complex=True)
    torch.testing.assert_close(image[:, 0], make(mode)(kspace, mask, sens_maps=maps, return_complex=True))
    assert not image[:, 1].any()


def test_maps_are_estimated_or_ones() -> None:
    kspace, mask, _ = example()
    for num_low in (None, 0, 10, torch.tensor([10, 10])):
        expected = make()(kspace, mask, sens_maps=estimate_sens_maps(kspace, 10))
        torch.testing.assert_close(make()(kspace, mask, num_low), expected)
    kspace, mask, ones = example(coils=1)
    mask[..., 14, :] = False  # no center to estimate anything from
    assert torch.equal(make()(kspace * mask, mask), make()(kspace * mask, mask, sens_maps=ones))


def test_hard_data_consistency_replaces_the_samples_of_a_single_coil() -> None:
    kspace, mask, ones = example(coils=1)
    net = make()
    before = images_before_data_consistency(net)
    result = torch.view_as_real(net(kspace, mask, return_complex=True).detach()).unsqueeze(1)
    assert float((fastmri.fft2c(result) * mask - kspace).abs().max()) < 1e-5
    scale = sens_reduce(kspace, ones).norm(dim=-1).amax(dim=(1, 2, 3)).reshape(-1, 1, 1, 1, 1)
    z = scale * before[0].detach().unsqueeze(1)
    replaced = fastmri.ifft2c(torch.where(mask, kspace, fastmri.fft2c(z.contiguous())))
    torch.testing.assert_close(result, replaced, rtol=1e-4, atol=1e-5)
    assert float((fastmri.fft2c(z.contiguous()) * mask - kspace).abs().max()) > 0.1


def test_hard_data_consistency_of_several_coils_is_done_in_each() -> None:
    kspace, mask, maps = example()
    z = randn_complex(2, 24, 28, seed=5)
    zero_filled = torch.view_as_complex(sens_reduce(kspace, maps))[:, 0]
    result = data_consistency_step(z, zero_filled, SenseNormalOperator(mask, maps))
    coils = torch.where(mask, kspace, sens_expand(torch.view_as_real(z).unsqueeze(1), maps))
    torch.testing.assert_close(result, torch.view_as_complex(sens_reduce(coils, maps))[:, 0], rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="zero_filled must have the shape of image"):
        data_consistency_step(z, zero_filled[:, 1:], SenseNormalOperator(mask, maps))


@all_modes
def test_the_full_data_of_one_coil_give_the_image(mode: str) -> None:
    image = randn_complex(2, 24, 28)
    kspace = fastmri.fft2c(torch.view_as_real(image).unsqueeze(1))
    mask = torch.ones(2, 1, 1, 28, 1)
    settings = {} if mode == "hard" else {"lam": 1e-6}
    result = make(mode, **settings)(kspace, mask, return_complex=True)
    torch.testing.assert_close(result, image, rtol=1e-4, atol=2e-5)


def test_soft_lies_between_hard_and_none() -> None:
    kspace, mask, maps = example()
    hard, almost_hard = make(num_blocks=1), make("soft", num_blocks=1, lam=1e-7)
    torch.testing.assert_close(almost_hard(kspace, mask, sens_maps=maps), hard(kspace, mask, sens_maps=maps))
    none = make("soft", num_blocks=1, lam=1e7)
    before = images_before_data_consistency(none)
    result = none(kspace, mask, sens_maps=maps, return_complex=True)
    scale = sens_reduce(kspace, maps).norm(dim=-1).amax(dim=(1, 2, 3)).reshape(-1, 1, 1)
    torch.testing.assert_close(result, scale * torch.view_as_complex(before[0].contiguous()), rtol=1e-4, atol=1e-5)


def test_soft_weighs_the_samples_of_a_single_coil_as_schlemper_does() -> None:
    kspace, mask, _ = example(coils=1)
    net = make("soft", lam=0.7)
    before = images_before_data_consistency(net)
    result = torch.view_as_real(net(kspace, mask, return_complex=True)).unsqueeze(1)
    scale = fastmri.ifft2c(kspace).norm(dim=-1).amax(dim=(1, 2, 3)).reshape(-1, 1, 1, 1, 1)
    samples = fastmri.fft2c(scale * before[0].unsqueeze(1).contiguous())
    expected = torch.where(mask, (samples + kspace / 0.7) / (1 + 1 / 0.7), samples)
    torch.testing.assert_close(fastmri.fft2c(result), expected, rtol=1e-4, atol=1e-5)
    # and so does the exact solution, which from z is one step away
    exact = make("cg", lam=0.7, num_cg_iterations=1)(kspace, mask, return_complex=True)
    torch.testing.assert_close(torch.view_as_complex(result)[:, 0], exact, rtol=1e-4, atol=1e-5)


def test_cg_solves_the_normal_equations() -> None:
    kspace, mask, maps = example(batch=1, rows=8, cols=10)
    net = make("cg", num_blocks=1, num_cg_iterations=40, lam=0.1)
    before = images_before_data_consistency(net)
    result = net(kspace, mask, sens_maps=maps, return_complex=True)
    zero_filled = torch.view_as_complex(sens_reduce(kspace, maps))[:, 0]
    z = torch.view_as_complex(before[0].contiguous()) * zero_filled.abs().max()
    normal = SenseNormalOperator(mask, maps)
    columns = [normal(unit.reshape(1, 8, 10)).flatten() for unit in torch.eye(80, dtype=torch.complex64)]
    matrix = torch.stack(columns, dim=1) + 0.1 * torch.eye(80)
    solution = torch.linalg.solve(matrix, (zero_filled + 0.1 * z).flatten())
    torch.testing.assert_close(result.flatten(), solution, rtol=1e-4, atol=1e-4)
    assert float((result - z).detach().abs().max()) > 0.1


@all_modes
@torch.no_grad()
def test_batch_of_two_equals_two_singles(mode: str) -> None:
    kspace, mask, maps = example()
    kspace[1] *= 100
    net = make(mode)
    both = net(kspace, mask, sens_maps=maps)
    for i in range(2):
        alone = net(kspace[i : i + 1], mask[i : i + 1], sens_maps=maps[i : i + 1])
        torch.testing.assert_close(both[i : i + 1], alone, rtol=1e-4, atol=1e-5 * float(alone.max()))


@all_modes
def test_scales_with_its_input(mode: str) -> None:
    kspace, mask, maps = example()
    one, small = (make(mode)(scale * kspace, mask, sens_maps=maps) for scale in (1.0, 1e-6))
    torch.testing.assert_close(small * 1e6, one, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_image_is_zero_where_the_maps_are() -> None:
    kspace, mask, maps = example()
    maps[:, :, :, :10] = 0
    image = make()(kspace, mask, sens_maps=maps, return_complex=True)
    assert float(image[:, :, :10].abs().max()) == 0 < float(image[:, :, 10:].abs().min())


@all_modes
def test_zero_input_gives_zero_and_finite_gradients(mode: str) -> None:
    kspace, mask, maps = example()
    kspace[0] = 0
    net = make(mode)
    image = net(kspace, mask, sens_maps=maps)
    assert float(image[0].abs().max()) == 0 < float(image[1].abs().max())
    image.square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() and p.grad.any() for p in net.parameters())
    if mode != "hard":
        assert net.raw_lambda.grad is not None and net.raw_lambda.grad.all()


def test_only_what_is_learned_is_a_parameter() -> None:
    for mode in MODES:
        assert ("raw_lambda" in dict(make(mode).named_parameters())) == (mode != "hard")
    torch.testing.assert_close(make("soft").lam, torch.full((2,), 0.05))
    for lam in (1e-4, 3.0, 500.0):
        torch.testing.assert_close(make("cg", lam=lam).lam, torch.full((2,), lam))
    assert make("cg").num_cg_iterations == 6
    with pytest.raises(ValueError, match="lam must be read with data_consistency='soft' or 'cg'"):
        _ = make().lam


def test_network_of_the_paper() -> None:
    net = RecNet()
    assert len(net.blocks) == 3 and net.data_consistency == "hard"
    for block in net.blocks:
        kinds = [type(layer) for layer in block]
        assert kinds == [nn.Conv2d, nn.LeakyReLU, nn.Conv2d, nn.LeakyReLU, nn.Conv2d]
        assert [(layer.in_channels, layer.out_channels) for layer in block[::2]] == [(2, 32), (32, 32), (32, 2)]
        assert {layer.negative_slope for layer in block[1::2]} == {0.01}


@pytest.mark.parametrize(
    ("mode", "settings"),
    [
        ("hard", {"num_blocks": 3}),
        ("hard", {"convs_per_block": 4}),
        ("hard", {"chans": 5}),
        ("hard", {"data_consistency": "cg"}),
        ("soft", {"data_consistency": "hard"}),
        ("soft", {"lam": 1.0}),
        ("cg", {"lam": 1.0}),
        ("cg", {"num_cg_iterations": 1}),
    ],
)
def test_each_option_changes_the_result(mode: str, settings: dict) -> None:
    kspace, mask, maps = example()
    default, changed = (make(mode, **s)(kspace, mask, sens_maps=maps) for s in ({}, settings))
    assert not torch.allclose(default, changed, rtol=1e-3)


@all_modes
def test_autocast_runs_the_convolutions_in_bfloat16_and_the_physics_in_float32(mode: str) -> None:
    kspace, mask, maps = example(coils=1)
    net, seen = make(mode), []
    net.blocks[0].register_forward_hook(lambda *args: seen.append(args[2].dtype))
    exact = net(kspace, mask, sens_maps=maps)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        image = net(kspace, mask, sens_maps=maps, return_complex=True)
    assert image.dtype == torch.complex64 and seen == [torch.float32, torch.bfloat16]
    assert 0 < float((image.abs() - exact).norm() / exact.norm()) < 0.02
    if mode == "hard":
        samples = fastmri.fft2c(torch.view_as_real(image.detach()).unsqueeze(1))
        assert float((samples * mask - kspace).abs().max()) < 1e-5
    image.abs().sum().backward()


@all_modes
def test_short_training_ends_finite_and_lower(mode: str) -> None:
    kspace, mask, maps = example(batch=1)
    target = randn_complex(1, 24, 28).abs()
    net, losses = make(mode), []
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
    for _ in range(15):
        loss = (net(kspace, mask, sens_maps=maps) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    assert torch.stack(losses).isfinite().all() and losses[-1] < 0.9 * losses[0]


def test_bad_settings_are_named() -> None:
    for settings, message in [
        ({"num_blocks": 0}, "num_blocks must be at least 1, got 0"),
        ({"convs_per_block": 1}, "convs_per_block must be at least 2, got 1"),
        ({"chans": 0}, "chans must be at least 1, got 0"),
        ({"data_consistency": "firm"}, "data_consistency must be 'hard', 'soft' or 'cg', got 'firm'"),
        ({"lam": 0.1}, "lam is for data_consistency='soft' or 'cg' only"),
        ({"num_cg_iterations": 3}, "num_cg_iterations is for data_consistency='cg' only, got 'hard'"),
        ({"data_consistency": "soft", "num_cg_iterations": 3}, "for data_consistency='cg' only, got 'soft'"),
        ({"data_consistency": "soft", "lam": 0.0}, "lam must be positive and finite"),
        ({"data_consistency": "cg", "num_cg_iterations": 0}, "num_cg_iterations must be at least 1, got 0"),
    ]:
        with pytest.raises(ValueError, match=message):
            RecNet(**settings)  # type: ignore[arg-type]
    kspace, mask, maps = example()
    with pytest.raises(ValueError, match="sens_maps must have the shape of kspace"):
        make()(kspace, mask, sens_maps=maps[:, :1])
    with pytest.raises(ValueError, match="mask must have shape"):
        make()(kspace, mask[..., 1:, :], sens_maps=maps)
