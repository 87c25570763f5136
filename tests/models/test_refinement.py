import pytest
import torch
from helpers import column_mask, randn_complex, smooth_maps
from torch import Tensor, nn

from fastmri_ufloss.models import RefinementNet, RefinementUnet
from fastmri_ufloss.mri import sens_expand, sens_reduce

all_chans = pytest.mark.parametrize("in_chans", [1, 2])


def example(in_chans: int, batch: int = 2, rows: int = 16, cols: int = 20) -> Tensor:
    image = randn_complex(batch, 1, rows, cols)
    return image if in_chans == 2 else image.abs()


def make(in_chans: int = 2, *, gate: float = 0.0, **settings: object) -> RefinementNet:
    torch.manual_seed(0)
    net = RefinementNet(in_chans=in_chans, chans=4, **settings)  # type: ignore[arg-type]
    with torch.no_grad():
        net.gate.fill_(gate)
    return net


def real(image: Tensor) -> Tensor:
    return torch.view_as_real(image) if image.is_complex() else image


def test_unet_of_the_paper() -> None:
    unet = RefinementUnet(in_chans=2)
    convolutions = [m for m in unet.modules() if isinstance(m, nn.Conv2d)]
    widths = [(m.in_channels, m.out_channels) for m in convolutions[:-1]]
    down, enlarge, up = widths[:6], widths[6:8], widths[8:]
    assert down == [(2, 32), (32, 32), (32, 64), (64, 64), (64, 128), (128, 128)]
    assert enlarge == [(128, 64), (64, 32)]
    assert up == [(128, 64), (64, 64), (64, 32), (32, 32)]
    assert all(m.kernel_size == (4, 4) and m.padding_mode == "reflect" for m in convolutions[:-1])
    assert (convolutions[-1].out_channels, convolutions[-1].kernel_size) == (2, (1, 1))
    assert {m.negative_slope for m in unet.modules() if isinstance(m, nn.LeakyReLU)} == {0.1}
    assert sum(isinstance(m, nn.BatchNorm2d) for m in unet.modules()) == len(convolutions) - 1


def test_unet_starts_with_orthogonal_weights_and_no_bias() -> None:
    unet = RefinementUnet(in_chans=2, chans=4)
    for module in unet.modules():
        if isinstance(module, nn.Conv2d):
            rows = module.weight.detach().flatten(1)
            torch.testing.assert_close(rows @ rows.T, 2 * torch.eye(len(rows)), rtol=0, atol=1e-5)
    biases = [p for name, p in unet.named_parameters() if name.endswith("bias")]
    assert len(biases) == 13 and not any(p.any() for p in biases)


def test_padding_is_a_reflection_of_one_before_and_two_after() -> None:
    torch.manual_seed(0)
    convolution = RefinementUnet(in_chans=1, chans=4).down[0][0]
    image = torch.randn(1, 1, 9, 11)
    padded = torch.cat([image[:, :, 1:2], image, image[:, :, [-2, -3]]], dim=2)
    padded = torch.cat([padded[..., 1:2], padded, padded[..., [-2, -3]]], dim=3)
    expected = nn.functional.conv2d(padded, convolution.weight)
    torch.testing.assert_close(convolution(image), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("size", [(9, 9), (10, 23), (11, 12), (16, 17)])
def test_any_size(size: tuple[int, int]) -> None:
    unet = RefinementUnet(in_chans=1, chans=2)
    output = unet(torch.randn(1, 1, *size))
    assert output.shape == (1, 1, *size) and output.isfinite().all()


def test_size_is_filled_by_reflection() -> None:
    torch.manual_seed(0)
    unet = RefinementUnet(in_chans=1, chans=2).eval()
    image = torch.randn(1, 1, 14, 13)
    filled = nn.functional.pad(image, (0, 3, 0, 2), mode="reflect")
    torch.testing.assert_close(unet(image), unet(filled)[:, :, :14, :13])


def test_smaller_images_are_refused() -> None:
    for size in ((8, 20), (20, 8)):
        with pytest.raises(ValueError, match=f"at least 9x9 pixels, got {size[0]}x{size[1]}"):
            RefinementUnet(in_chans=1, chans=2)(torch.randn(1, 1, *size))
    assert RefinementUnet.min_size == 9
    assert RefinementUnet(in_chans=1, chans=2).train()(torch.randn(1, 1, 9, 9)).isfinite().all()


@all_chans
def test_a_closed_gate_gives_the_image(in_chans: int) -> None:
    image = example(in_chans) * 1e-4
    net = make(in_chans)
    assert torch.equal(net(image)[0], image)
    with torch.no_grad():
        net.unet.last.weight.fill_(1e36)
    refined, change = net(1e10 * image)
    assert torch.equal(refined, 1e10 * image) and float(change.abs().max()) > 1e35


@all_chans
def test_a_closed_gate_gives_a_gradient_to_itself_only(in_chans: int) -> None:
    net = make(in_chans)
    refined, _ = net(example(in_chans))
    (real(refined) - 0.3).square().sum().backward()
    assert net.gate.grad is not None and float(net.gate.grad.abs()) > 0
    assert all(p.grad is not None and not p.grad.any() for p in net.unet.parameters())


@all_chans
def test_an_open_gate_gives_gradients_to_all(in_chans: int) -> None:
    net, image = make(in_chans, gate=0.5), example(in_chans).requires_grad_()
    real(net(image)[0]).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() and p.grad.any() for p in net.parameters())
    assert image.grad is not None and image.grad.abs().max() > 0


def test_the_image_has_a_gradient_through_both_ways() -> None:
    gradients = []
    for gate in (0.0, 0.5):
        image = example(2).requires_grad_()
        torch.view_as_real(make(2, gate=gate)(image)[0]).sum().backward()
        gradients.append(image.grad)
    assert torch.equal(gradients[0], torch.full_like(gradients[0], 1 + 1j))
    assert not torch.allclose(gradients[1], gradients[0])


@all_chans
def test_equation(in_chans: int) -> None:
    net, image = make(in_chans, gate=0.5).eval(), example(in_chans)
    image[1] *= 1e3
    peak = torch.stack([x.abs().max() for x in image]).reshape(2, 1, 1, 1)
    if in_chans == 2:
        u = torch.view_as_real(image[:, 0] / peak[:, 0]).permute(0, 3, 1, 2)
        change = net.unet(u)
        expected = image + 0.5 * peak * torch.view_as_complex(change.permute(0, 2, 3, 1).contiguous()).unsqueeze(1)
    else:
        u = 2 * image / peak - 1
        change = net.unet(u)
        expected = (u + 0.5 * change + 1) / 2 * peak
    assert float(u.max()) <= 1 and float(u.min()) >= -1
    refined, given = net(image)
    torch.testing.assert_close(given, change)
    torch.testing.assert_close(refined, expected, rtol=1e-4, atol=1e-4)
    assert refined.shape == image.shape and refined.dtype == image.dtype
    assert given.shape == (2, in_chans, 16, 20) and not given.is_complex()
    assert not torch.allclose(refined, image, rtol=1e-2)


@all_chans
def test_scales_with_its_input(in_chans: int) -> None:
    net, image = make(in_chans, gate=0.5), example(in_chans)
    torch.testing.assert_close(net(image * 1e-6)[0] * 1e6, net(image)[0], rtol=1e-3, atol=1e-4)


@all_chans
def test_batch_of_two_equals_two_singles(in_chans: int) -> None:
    net, image = make(in_chans, gate=0.5).eval(), example(in_chans)
    image[1] *= 100
    both = net(image)
    for i in range(2):
        alone = net(image[i : i + 1])
        torch.testing.assert_close(both[0][i : i + 1], alone[0], rtol=1e-4, atol=1e-3)
        torch.testing.assert_close(both[1][i : i + 1], alone[1], rtol=1e-4, atol=1e-5)


@all_chans
def test_a_zero_image_stays_zero_with_finite_gradients(in_chans: int) -> None:
    net, image = make(in_chans, gate=0.5), example(in_chans)
    image[0] = 0
    image.requires_grad_()
    refined = net(image)[0]
    assert not refined[0].any() and refined[1].any()
    real(refined).square().sum().backward()
    assert image.grad is not None and real(image.grad).isfinite().all()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


def scan(coils: int) -> dict[str, Tensor]:
    maps = smooth_maps(2, coils, 16, 20)
    if coils == 1:
        maps = torch.zeros_like(maps)
        maps[..., 0] = 1
    mask = column_mask(2, 20)
    kspace = sens_expand(torch.view_as_real(example(2)), maps) * mask
    return {"masked_kspace": kspace, "mask": mask, "sens_maps": maps}


@pytest.mark.parametrize("coils", [1, 3])
def test_data_consistency_puts_the_samples_back(coils: int) -> None:
    data, image = scan(coils), randn_complex(2, 1, 16, 20, seed=3)
    refined = make(gate=0.5)(image)[0]
    result = make(gate=0.5, data_consistency=True)(image, **data)[0]
    samples = sens_expand(torch.view_as_real(refined), data["sens_maps"])
    replaced = torch.where(data["mask"], data["masked_kspace"], samples)
    expected = torch.view_as_complex(sens_reduce(replaced, data["sens_maps"]))
    torch.testing.assert_close(result, expected, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(result, refined, rtol=1e-2)


def test_data_consistency_needs_its_data() -> None:
    net, image, data = make(data_consistency=True), example(2), scan(3)
    for name in data:
        with pytest.raises(ValueError, match=f"needs masked_kspace, mask and sens_maps, got no {name}"):
            net(image, **{**data, name: None})
    two = {**data, "sens_maps": torch.stack([data["sens_maps"]] * 2, dim=1)}
    with pytest.raises(ValueError, match="sens_maps must be of one set"):
        net(image, **two)
    with pytest.raises(ValueError, match="in_chans must be 2 with data_consistency, got 1"):
        RefinementNet(in_chans=1, data_consistency=True)


@all_chans
def test_autocast_runs_v_in_bfloat16(in_chans: int) -> None:
    net, image, seen = make(in_chans, gate=0.5), example(in_chans), []
    net.unet.last.register_forward_hook(lambda *args: seen.append(args[2].dtype))
    exact, _ = net(image)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        refined, change = net(image)
    assert seen == [torch.float32, torch.bfloat16]
    assert refined.dtype == image.dtype and change.dtype == torch.float32
    assert 0 < float((refined - exact).norm() / exact.norm()) < 0.05
    real(refined).sum().backward()


def test_double_images_stay_double() -> None:
    image = randn_complex(1, 1, 12, 12, dtype=torch.complex128)
    assert torch.equal(make()(image)[0], image)


def test_short_training_ends_lower_and_opens_the_gate() -> None:
    net, losses = make(1), []
    image = torch.rand(2, 1, 16, 16, generator=torch.Generator().manual_seed(0)) + 1
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
    for _ in range(15):
        loss = (net(image)[0] - image.square()).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    assert torch.stack(losses).isfinite().all() and losses[-1] < 0.8 * losses[0]
    assert float(net.gate.detach().abs()) > 0


def test_bad_input_is_named() -> None:
    for in_chans, chans in ((0, 4), (1, 0)):
        with pytest.raises(ValueError, match="in_chans and chans must be at least 1"):
            RefinementUnet(in_chans=in_chans, chans=chans)
    with pytest.raises(ValueError, match=r"in_chans must be 1 \(magnitude\) or 2 \(real, imaginary\), got 3"):
        RefinementNet(in_chans=3)  # type: ignore[arg-type]
    for images in (torch.rand(1, 1, 12, 12), torch.rand(2, 12, 12), example(2).repeat(1, 2, 1, 1)):
        with pytest.raises(ValueError, match=r"images must be real with shape \(batch, 2, rows, cols\)"):
            RefinementUnet(in_chans=2, chans=2)(images)
    for in_chans, image in ((1, example(2)), (2, example(1)), (2, example(2)[:, 0]), (2, example(2)[:, [0, 0]])):
        kind = "complex" if in_chans == 2 else "real"
        with pytest.raises(ValueError, match=rf"image must be {kind} with shape \(batch, 1, rows, cols\)"):
            make(in_chans)(image)
