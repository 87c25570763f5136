import pytest
import torch
from torch import Tensor, nn

from fastmri_ufloss.models import PatchDiscriminator


def make(*, num_strided: int = 2, **settings: object) -> PatchDiscriminator:
    torch.manual_seed(0)
    return PatchDiscriminator(chans=4, num_strided=num_strided, **settings)  # type: ignore[arg-type]


def images(batch: int = 2, rows: int = 32, cols: int = 40) -> Tensor:
    return torch.rand(batch, 1, rows, cols, generator=torch.Generator().manual_seed(0)) * 2 - 1


def masks(net: PatchDiscriminator, batch: int = 2, seed: int = 0) -> list[Tensor]:
    return net.draw_dropout(batch, torch.Generator().manual_seed(seed))


def test_network_of_the_paper() -> None:
    with torch.device("meta"):
        net = PatchDiscriminator()
        convolutions = [m for m in net.modules() if isinstance(m, nn.Conv2d)]
        for size, num_logits in ((512, 13), (256, 5)):
            output = net(torch.empty(5, 1, size, size))
            assert output.logits.shape == (5, 1, num_logits, num_logits)
            sides = [size // 2, size // 4, size // 8, size // 16, size // 32, size // 32]
            widths = [64, 128, 256, 512, 1024, 1024]
            expected = [(5, n, side, side) for n, side in zip(widths, sides, strict=True)]
            assert [tuple(features.shape) for features in output.features] == expected
    assert [m.stride for m in convolutions] == [(2, 2)] * 5 + [(1, 1)] * 2
    assert {m.kernel_size for m in convolutions} == {(4, 4)}
    assert net.widths == (64, 128, 256, 512, 1024, 1024) and net.min_size == 128
    assert [any(isinstance(m, nn.BatchNorm2d) for m in layer) for layer in net.layers] == [False] + [True] * 5
    assert {m.negative_slope for m in net.modules() if isinstance(m, nn.LeakyReLU)} == {0.2}
    assert net.dropout == 0.5


@pytest.mark.parametrize(("num_strided", "widths"), [(2, (4, 8, 8)), (6, (4, 8, 16, 32, 64, 64, 64))])
def test_widths(num_strided: int, widths: tuple[int, ...]) -> None:
    net = make(num_strided=num_strided)
    assert net.widths == widths and len(net.layers) == num_strided + 1


@pytest.mark.parametrize("num_strided", [2, 3, 5])
def test_least_size(num_strided: int) -> None:
    net = make(num_strided=num_strided).train()
    least = net.min_size
    # one image at the least size still has several values in each channel, for batch norm
    output = net(images(1, least, least + 1))
    assert output.logits.shape == (1, 1, 1, 1) and output.logits.isfinite().all()
    for size in ((least - 1, least), (least, least - 1)):
        message = f"at least {least}x{least} pixels .* got {size[0]}x{size[1]}: lower num_strided"
        with pytest.raises(ValueError, match=message):
            net(images(1, *size))


@pytest.mark.parametrize("size", [(16, 16), (17, 23), (31, 40)])
def test_number_of_logits(size: tuple[int, int]) -> None:
    assert make()(images(2, *size)).logits.shape[2:] == tuple(n // 4 - 3 for n in size)


def test_initial_weights() -> None:
    torch.manual_seed(0)
    net = PatchDiscriminator(chans=16, num_strided=4)
    for module in net.modules():
        if isinstance(module, nn.Conv2d) and module.weight.numel() > 5000:
            assert float(module.weight.std()) == pytest.approx(0.02, rel=0.1)
            assert abs(float(module.weight.mean())) < 0.002
    scales = torch.cat([m.weight.detach() for m in net.modules() if isinstance(m, nn.BatchNorm2d)])
    assert float(scales.mean()) == pytest.approx(1, abs=0.01) and float(scales.std()) == pytest.approx(0.02, rel=0.2)
    biases = [p for name, p in net.named_parameters() if name.endswith("bias")]
    assert len(biases) == 2 + 4 and not any(p.any() for p in biases)


def test_features_are_those_of_the_layers_before_dropout() -> None:
    net = make(num_strided=3).eval()
    given, x = masks(net), images(2, 40, 40)
    output = net(x, dropout=given)
    for index, (layer, features) in enumerate(zip(net.layers, output.features, strict=True)):
        x = layer(x)
        torch.testing.assert_close(features, x)
        x = x * given[index - 1] if index > 0 else x
    torch.testing.assert_close(output.logits, net.last(x))


def test_dropout_acts_where_it_is_given_only() -> None:
    net = make().train()
    one, other = net(images()), net(images())
    assert torch.equal(one.logits, other.logits)
    dropped = net(images(), dropout=masks(net))
    assert torch.equal(dropped.features[0], one.features[0])
    assert not torch.allclose(dropped.features[1], one.features[1])
    assert torch.equal(dropped.logits, net(images(), dropout=masks(net)).logits)
    assert not torch.equal(dropped.logits, net(images(), dropout=masks(net, seed=1)).logits)
    ones = [torch.ones_like(mask) for mask in masks(net)]
    assert torch.equal(net(images(), dropout=ones).logits, one.logits)


@pytest.mark.parametrize("p", [0.0, 0.25, 0.5])
def test_masks_keep_the_mean(p: float) -> None:
    net = make(num_strided=5, dropout=p)
    drawn = masks(net, batch=200)
    assert [tuple(mask.shape) for mask in drawn] == [(200, n, 1, 1) for n in (32, 64, 64)]
    for mask in drawn:
        assert torch.equal(mask.unique(), torch.tensor([0.0, 1 / (1 - p)] if p else [1.0]))
        assert float(mask.mean()) == pytest.approx(1, abs=0.05)
    # each image and each layer has its own, and a second draw goes on
    generator = torch.Generator().manual_seed(0)
    again, further = net.draw_dropout(200, generator), net.draw_dropout(200, generator)
    assert all(map(torch.equal, drawn, again))
    if p:
        assert not torch.equal(drawn[1], drawn[2]) and not torch.equal(drawn[0][0], drawn[0][1])
        assert not torch.equal(again[0], further[0])


def test_batch_of_two_equals_two_singles() -> None:
    net = make().eval()
    given = masks(net)
    both = net(images(), dropout=given)
    for i in range(2):
        alone = net(images()[i : i + 1], dropout=[mask[i : i + 1] for mask in given])
        torch.testing.assert_close(both.logits[i : i + 1], alone.logits)


def test_all_parameters_and_the_image_have_gradients() -> None:
    net, x = make(num_strided=3), images().requires_grad_()
    net(x).logits.square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() and p.grad.any() for p in net.parameters())
    assert x.grad is not None and x.grad.any()


def test_autocast() -> None:
    net = make()
    exact = net(images()).logits
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = net(images(), dropout=[torch.ones_like(mask) for mask in masks(net)])
    assert output.logits.dtype == torch.bfloat16
    assert 0 < float((output.logits - exact).norm() / exact.norm()) < 0.05


def test_learns_to_tell_two_kinds_of_images() -> None:
    net, losses = make(), []
    noise, smooth = images(4), images(4, 8, 10).repeat_interleave(4, 2).repeat_interleave(4, 3)
    optimizer = torch.optim.Adam(net.parameters(), lr=5e-3)
    for _ in range(15):
        loss = (nn.functional.softplus(-net(noise).logits) + nn.functional.softplus(net(smooth).logits)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.5 * losses[0] < float("inf")


def test_bad_input_is_named() -> None:
    for settings, message in [
        ({"chans": 0}, "chans must be at least 1"),
        ({"num_strided": 1}, "num_strided must be at least 2, got 1"),
        ({"dropout": 1.0}, r"dropout must be in \[0, 1\), got 1.0"),
        ({"dropout": -0.1}, r"dropout must be in \[0, 1\), got -0.1"),
    ]:
        with pytest.raises(ValueError, match=message):
            PatchDiscriminator(**settings)  # type: ignore[arg-type]
    net = make()
    for wrong in (images()[0], images().repeat(1, 2, 1, 1), images() + 0j):
        with pytest.raises(ValueError, match=r"images must be real with shape \(batch, 1, rows, cols\)"):
            net(wrong)
    for given in (masks(net)[:2], masks(net, batch=3), masks(net)[::-1]):
        with pytest.raises(ValueError, match="dropout must have masks of shapes"):
            net(images(), dropout=given)
