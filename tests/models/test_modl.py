import fastmri
import pytest
import torch
from helpers import column_mask, randn_complex, smooth_maps

from fastmri_ufloss.models import CnnDenoiser, MoDL, ResNetDenoiser, UnetDenoiser, VarNet
from fastmri_ufloss.mri import cg_sense, estimate_sens_maps, image_scale, sens_expand, sens_reduce

UNET = {"denoiser": "unet", "num_pools": 2, "share_weights": True}
SMALL = {"num_unrolls": 2, "num_cg_iterations": 3, "chans": 4, **UNET}


def example(batch: int = 2, coils: int = 4, rows: int = 40, cols: int = 44, scale: float = 1.0) -> tuple:
    maps = smooth_maps(batch, coils, rows, cols)
    image = torch.nn.functional.avg_pool2d(
        torch.view_as_real(randn_complex(batch, rows, cols)).permute(0, 3, 1, 2), 5, 1, 2
    )
    mask = column_mask(batch, cols, center=12)
    kspace = scale * sens_expand(image.permute(0, 2, 3, 1)[:, None].contiguous(), maps) * mask
    return kspace, mask, maps


def make(**settings: object) -> MoDL:
    torch.manual_seed(0)
    return MoDL(**{**SMALL, **settings}).eval()  # type: ignore[arg-type]


def test_stands_where_a_varnet_stands() -> None:
    kspace, mask, _ = example()
    modl, varnet = make(), VarNet(num_cascades=1, sens_chans=2, sens_pools=2, chans=2, pools=2)
    ours, theirs = modl(kspace, mask, 12), varnet(kspace, mask, 12)
    assert ours.shape == theirs.shape and ours.dtype == theirs.dtype


def test_estimated_maps_are_those_of_the_center_lines() -> None:
    kspace, mask, _ = example()
    modl, maps = make(), estimate_sens_maps(kspace, 12)
    for num_low in (None, 0, 12, torch.tensor([12, 12])):
        torch.testing.assert_close(modl(kspace, mask, num_low), modl(kspace, mask, sens_maps=maps))


def test_magnitude_is_that_of_the_complex_result() -> None:
    kspace, mask, maps = example()
    modl = make()
    image = modl(kspace, mask, sens_maps=maps, return_complex=True)
    assert image.is_complex()
    torch.testing.assert_close(modl(kspace, mask, sens_maps=maps), image.abs())


@pytest.mark.parametrize("denoiser", ["cnn", "unet", "resnet"])
def test_scales_with_its_input(denoiser: str) -> None:
    modl = make(denoiser=denoiser)
    with torch.no_grad():
        one, small = (modl(*example(scale=scale)[:2], sens_maps=example()[2]) for scale in (1.0, 1e-5))
    torch.testing.assert_close(small * 1e5, one, rtol=1e-3, atol=1e-4)


def test_a_cnn_sees_the_image_in_units_of_the_scale() -> None:
    kspace, mask, maps = example()
    modl = make(denoiser="cnn")
    torch.nn.init.normal_(modl.denoisers[0].layers[-1].bias)
    with torch.no_grad():
        image = modl(kspace, mask, sens_maps=maps, scale=torch.tensor([2.0, 3.0]))
        for i, scale in enumerate((2.0, 3.0)):
            alone = modl(kspace[i : i + 1] / scale, mask[i : i + 1], sens_maps=maps[i : i + 1], scale=torch.ones(1))
            torch.testing.assert_close(image[i : i + 1], alone * scale)
        zero_filled = torch.view_as_complex(sens_reduce(kspace, maps))[:, 0]
        by_itself = modl(kspace, mask, sens_maps=maps, scale=image_scale(zero_filled))
        torch.testing.assert_close(modl(kspace, mask, sens_maps=maps), by_itself)


@pytest.mark.parametrize("denoiser", ["cnn", "unet", "resnet"])
def test_each_set_of_maps_has_an_image(denoiser: str) -> None:
    """With a second set of zeros the first image is that of a single set."""
    kspace, mask, maps = example()
    modl, two = make(denoiser=denoiser, checkpoint_denoiser=True), torch.stack([maps, torch.zeros_like(maps)], dim=1)
    image = modl(kspace, mask, sens_maps=two, return_complex=True)
    torch.testing.assert_close(image[:, 0], modl(kspace, mask, sens_maps=maps, return_complex=True))
    assert not image[:, 1].any()
    magnitude = modl(kspace, mask, sens_maps=torch.stack([maps, maps.flip(1)], dim=1) / 2**0.5)
    magnitude.sum().backward()
    assert magnitude.shape == (2, 40, 44)
    assert all(p.grad is None or p.grad.isfinite().all() for p in modl.parameters())


@pytest.mark.parametrize("denoiser", ["cnn", "unet", "resnet"])
def test_batch_of_two_equals_two_singles(denoiser: str) -> None:
    kspace, mask, maps = example()
    kspace[1] *= 100
    modl = make(denoiser=denoiser)
    with torch.no_grad():
        both = modl(kspace, mask, sens_maps=maps)
        for i in range(2):
            alone = modl(kspace[i : i + 1], mask[i : i + 1], sens_maps=maps[i : i + 1])
            torch.testing.assert_close(both[i : i + 1], alone, rtol=1e-4, atol=1e-4 * float(alone.max()))


def test_a_perfect_denoiser_leaves_the_cg_sense_solution() -> None:
    # with D(x) = x and a vanishing lambda, unrolls are more conjugate gradient steps
    kspace, mask, maps = example()
    modl = make(num_unrolls=1, num_cg_iterations=60, lam=1e-6)
    modl.denoisers[0] = torch.nn.Identity()
    image = modl(kspace, mask, sens_maps=maps, return_complex=True)
    solution = cg_sense(kspace, mask, maps, num_iterations=60, lam=0)
    residual = [
        (sens_expand(torch.view_as_real(x[:, None]), maps) * mask - kspace).norm() / kspace.norm()
        for x in (image, solution)
    ]
    assert max(residual) < 1e-3


@pytest.mark.parametrize("denoiser", ["cnn", "unet", "resnet"])
def test_image_is_zero_where_the_maps_are(denoiser: str) -> None:
    kspace, mask, maps = example()
    maps[:, :, :, :10] = 0
    image = make(denoiser=denoiser)(kspace, mask, sens_maps=maps, return_complex=True)
    assert float(image[:, :, :10].abs().max()) == 0 < float(image[:, :, 10:].abs().min())


@pytest.mark.parametrize("size", [(33, 47), (17, 64), (50, 21)])
def test_any_size(size: tuple[int, int]) -> None:
    rows, cols = size
    kspace, mask, maps = example(batch=1, rows=rows, cols=cols)
    assert make()(kspace, mask, sens_maps=maps).shape == (1, rows, cols)


def test_single_coil() -> None:
    kspace, mask, _ = example(coils=1)
    ones = torch.zeros_like(kspace)
    ones[..., 0] = 1
    modl = make()
    torch.testing.assert_close(modl(kspace, mask), modl(kspace, mask, sens_maps=ones))


def test_zero_input_gives_zero_and_finite_gradients() -> None:
    kspace, mask, maps = example()
    for denoiser in ("cnn", "unet", "resnet"):
        modl = make(denoiser=denoiser)
        image = modl(torch.zeros_like(kspace), mask, sens_maps=maps, return_complex=True)
        image.abs().square().sum().backward()
        assert float(image.detach().abs().max()) < 1e-6
        assert all(p.grad is None or p.grad.isfinite().all() for p in modl.parameters())


@pytest.mark.parametrize(("settings", "num_denoisers"), [({"share_weights": True}, 1), ({"share_weights": False}, 2)])
def test_weights_and_lambda_are_shared_or_not(settings: dict, num_denoisers: int) -> None:
    modl = make(**settings)
    assert len(modl.denoisers) == num_denoisers and modl.lam.shape == (num_denoisers,)
    torch.testing.assert_close(modl.lam, torch.full((num_denoisers,), 0.05))


@pytest.mark.parametrize(
    "settings",
    [
        {"num_unrolls": 3},
        {"num_cg_iterations": 1},
        {"denoiser": "cnn"},
        {"denoiser": "resnet"},
        {"chans": 6},
        {"num_pools": 1},
        {"residual": False},
        {"share_weights": False},
        {"lam": 1.0},
    ],
)
def test_each_option_changes_the_result(settings: dict) -> None:
    kspace, mask, maps = example()
    default, changed = (make(**s)(kspace, mask, sens_maps=maps) for s in ({}, settings))
    assert not torch.allclose(default, changed, rtol=1e-3)


def test_lambda_is_learned_and_stays_positive_or_is_fixed() -> None:
    kspace, mask, maps = example()
    for learn in (True, False):
        modl = make(learn_lambda=learn)
        optimizer = torch.optim.SGD([p for p in modl.parameters() if p.requires_grad], lr=100.0)
        modl(kspace, mask, sens_maps=maps).sum().backward()
        optimizer.step()
        assert float(modl.lam.min()) >= 0
        assert bool((modl.lam != 0.05).any()) == learn or not learn
        assert (modl.raw_lambda.grad is not None) == learn


def test_checkpointing_and_cg_backwards_give_the_same_gradient() -> None:
    kspace, mask, maps = example()
    gradients = []
    for settings in ({}, {"checkpoint_denoiser": True}, {"cg_backward": "checkpoint"}):
        modl = make(**settings)
        modl(kspace, mask, sens_maps=maps).square().mean().backward()
        gradients.append(torch.cat([p.grad.flatten() for p in modl.parameters()]))
    torch.testing.assert_close(gradients[1], gradients[0])
    torch.testing.assert_close(gradients[2], gradients[0])


def test_implicit_gradient_is_close_when_the_solve_has_converged() -> None:
    kspace, mask, maps = example()
    gradients = []
    for backward in ("unrolled", "implicit"):
        modl = make(cg_backward=backward, num_cg_iterations=40)
        modl(kspace, mask, sens_maps=maps).square().mean().backward()
        gradients.append(torch.cat([p.grad.flatten() for p in modl.parameters()]))
    assert float((gradients[0] - gradients[1]).norm() / gradients[0].norm()) < 1e-2


def result_and_gradient(modl: MoDL) -> tuple[torch.Tensor, torch.Tensor]:
    kspace, mask, maps = example()
    modl.zero_grad()
    image = modl(kspace, mask, sens_maps=maps)
    image.square().mean().backward()
    return image.detach(), torch.cat([p.grad.flatten() for p in modl.parameters()])


@pytest.mark.parametrize("denoiser", ["cnn", "unet"])
def test_autocast_runs_the_denoiser_in_bfloat16_and_the_physics_in_float32(denoiser: str) -> None:
    modl, seen = make(denoiser=denoiser), []
    last = [layer for layer in modl.denoisers[0].modules() if isinstance(layer, torch.nn.Conv2d)][-1]
    torch.nn.init.normal_(last.weight, std=0.1)  # that of a cnn starts at zero
    exact, gradient = result_and_gradient(modl)
    last.register_forward_hook(lambda *args: seen.append(args[2].dtype))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        image, other_gradient = result_and_gradient(modl)
    assert image.dtype == torch.float32 and torch.bfloat16 in seen
    assert float((image - exact).norm() / exact.norm()) < 0.03
    assert float((other_gradient - gradient).norm() / gradient.norm()) < 0.1


@pytest.mark.parametrize("denoiser", ["cnn", "unet"])
def test_compiled_denoisers_give_the_same_and_keep_the_names_of_their_weights(denoiser: str) -> None:
    modl = make(denoiser=denoiser)
    expected, names = result_and_gradient(modl), list(modl.state_dict())
    for part in modl.denoisers:
        part.compile(backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(result_and_gradient(modl), expected, rtol=1e-4, atol=1e-5)
    assert list(modl.state_dict()) == names


def test_short_training_ends_finite_and_lower() -> None:
    kspace, mask, maps = example(batch=1)
    target = torch.view_as_complex(fastmri.ifft2c(kspace / 0.5)).abs().square().sum(1).sqrt()
    modl = make().train()
    optimizer = torch.optim.Adam(modl.parameters(), lr=1e-2)
    losses = []
    for _ in range(15):
        loss = (modl(kspace, mask, sens_maps=maps) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert all(map(torch.isfinite, map(torch.tensor, losses))) and losses[-1] < 0.8 * losses[0]


def test_bad_settings_are_named() -> None:
    for settings, message in [
        ({"num_unrolls": 0}, "num_unrolls"),
        ({"lam": 0.0}, "lam must be positive"),
        ({"denoiser": "vit"}, "denoiser must be"),
        ({"cg_backward": "exact"}, "cg_backward must be"),
        ({"chans": 0}, "chans"),
        ({"denoiser": "cnn", "num_layers": 1}, "num_layers >= 2, got 4 and 1"),
    ]:
        with pytest.raises(ValueError, match=message):
            MoDL(**{**SMALL, **settings})  # type: ignore[arg-type]


def test_an_untrained_cnn_changes_nothing() -> None:
    denoiser, image = CnnDenoiser(chans=4, num_layers=3), randn_complex(2, 20, 24)
    assert torch.equal(denoiser(image), image)
    torch.nn.init.normal_(denoiser.layers[-1].weight)
    assert not torch.allclose(denoiser(image), image)


def test_layers_of_a_cnn_see_so_many_pixels() -> None:
    denoiser = CnnDenoiser(chans=4, num_layers=4)
    torch.nn.init.normal_(denoiser.layers[-1].weight)
    image = randn_complex(1, 21, 21).requires_grad_()
    denoiser(image)[0, 10, 10].abs().backward()
    rows, cols = (image.grad[0] != 0).nonzero(as_tuple=True)
    assert (rows.min(), rows.max(), cols.min(), cols.max()) == (6, 14, 6, 14)


@pytest.mark.parametrize("denoiser", [CnnDenoiser(), UnetDenoiser(chans=4, num_pools=2), ResNetDenoiser(chans=4)])
def test_denoisers_keep_shape_and_kind(denoiser: torch.nn.Module) -> None:
    image = randn_complex(2, 20, 24)
    assert denoiser(image).shape == image.shape and denoiser(image).is_complex()
