"""What all losses without a network have in common, and the outside implementations that they agree with."""

import sys
from collections.abc import Callable
from functools import partial

import fastmri
import fastmri.evaluate
import numpy as np
import piq
import pytest
import scipy.ndimage
import skimage.filters
import skimage.metrics
import torch
from helpers import randn_complex
from torch import Tensor, nn

from fastmri_ufloss.losses.fine_structure import (
    EdgeLoss,
    FrequencyLoss,
    HFENLoss,
    edge_loss,
    frequency_loss,
    hfen_loss,
    laplacian_of_gaussian,
    sobel_magnitude,
)
from fastmri_ufloss.losses.images import L1Loss, L2Loss, NMSELoss, l1_loss, l2_loss, nmse_loss
from fastmri_ufloss.losses.reader_scores import HaarPSILoss, haarpsi_loss, reader_score
from fastmri_ufloss.losses.ssim import DSSIMLoss, MSSSIMLoss, SSIMLoss, dssim_loss, ms_ssim_loss, ssim_loss

LOSSES: dict[str, tuple[Callable[..., Tensor], nn.Module]] = {
    "l1": (l1_loss, L1Loss()),
    "l2": (l2_loss, L2Loss()),
    "nmse": (nmse_loss, NMSELoss()),
    "ssim": (ssim_loss, SSIMLoss()),
    "dssim": (dssim_loss, DSSIMLoss()),
    "ms_ssim": (partial(ms_ssim_loss, num_scales=2), MSSSIMLoss(num_scales=2)),
    "haarpsi": (haarpsi_loss, HaarPSILoss()),
    "edge": (edge_loss, EdgeLoss()),
    "hfen": (hfen_loss, HFENLoss()),
    "frequency": (frequency_loss, FrequencyLoss()),
}
KINDS = ("complex", "magnitude")
all_losses = pytest.mark.parametrize("loss", [f for f, _ in LOSSES.values()], ids=LOSSES)
all_kinds = pytest.mark.parametrize("kind", KINDS)
RANGED = ("ssim", "dssim", "ms_ssim", "haarpsi")
with_data_range = pytest.mark.parametrize("loss", [LOSSES[name][0] for name in RANGED])


def pair(
    kind: str, *, batch: int = 2, rows: int = 40, cols: int = 36, dtype: torch.dtype = torch.complex64
) -> tuple[Tensor, Tensor]:
    target = 0.3 * randn_complex(batch, 1, rows, cols, seed=1, dtype=dtype) + 1
    output = target + 0.1 * randn_complex(batch, 1, rows, cols, seed=2, dtype=dtype)
    return (output, target) if kind == "complex" else (output.abs(), target.abs())


def largest(target: Tensor) -> Tensor:
    return target.abs().amax(dim=(1, 2, 3))


def array(image: Tensor) -> np.ndarray:
    """One image, (rows, cols), in double precision."""
    return image[0, 0].numpy().astype(np.complex128 if image.is_complex() else np.float64)


@all_losses
@all_kinds
def test_zero_on_equal_images(loss: Callable[..., Tensor], kind: str) -> None:
    image = pair(kind)[1]
    for target in (image, image.roll(1, dims=0) * 1e-5, torch.full_like(image, 0.3), torch.zeros_like(image)):
        data_range = largest(target) + 1e-6
        assert loss(target, target, data_range, reduction="none").abs().max() <= 1e-6
    assert loss(*pair(kind), largest(image)) > 1e-4


@all_losses
@all_kinds
@pytest.mark.parametrize("case", ["zero target", "zero output", "both zero", "constant target", "constants", "equal"])
def test_finite_values_and_gradients(loss: Callable[..., Tensor], kind: str, case: str) -> None:
    output, target = pair(kind)
    zero, constant = torch.zeros_like(output), torch.full_like(output, 0.7)
    output, target = {
        "zero target": (output, zero),
        "zero output": (zero, target),
        "both zero": (zero, zero),
        "constant target": (output, constant),
        "constants": (constant, 2 * constant),
        "equal": (target, target),
    }[case]
    output = output.clone().requires_grad_()
    value = loss(output, target, torch.ones(2))
    value.backward()
    assert value.isfinite() and value < 1e6
    assert output.grad is not None and torch.view_as_real(output.grad + 0j).isfinite().all()


@all_losses
@all_kinds
@pytest.mark.parametrize("scale", [1e-5, 1e-4, 1e3])
def test_does_not_depend_on_the_unit(loss: Callable[..., Tensor], kind: str, scale: float) -> None:
    output, target = pair(kind)
    expected = loss(output, target, largest(target))
    scaled = loss(output * scale, target * scale, largest(target) * scale)
    torch.testing.assert_close(scaled, expected, rtol=1e-4, atol=0)


@pytest.mark.parametrize("name", LOSSES)
@all_kinds
def test_mean_over_the_batch(name: str, kind: str) -> None:
    loss, module = LOSSES[name]
    output, target = pair(kind)
    output = output * torch.tensor([1.0, 1.5]).reshape(2, 1, 1, 1)  # so that the images have values of their own
    data_range = largest(target)
    singles = torch.stack([loss(output[i, None], target[i, None], data_range[i]) for i in range(2)])
    assert abs(singles[0] - singles[1]) > 0.1 * singles.min()
    torch.testing.assert_close(loss(output, target, data_range, reduction="none"), singles)
    torch.testing.assert_close(loss(output, target, data_range), singles.mean())
    torch.testing.assert_close(module(output, target, data_range), singles.mean())


@all_losses
@all_kinds
def test_gradient_in_float64(loss: Callable[..., Tensor], kind: str) -> None:
    output, target = pair(kind, rows=22, cols=21, dtype=torch.complex128)
    data_range = largest(target)
    output.requires_grad_()
    assert loss(output, target, data_range).dtype == torch.float64
    assert torch.autograd.gradcheck(lambda x: loss(x, target, data_range), output, fast_mode=True)


@all_losses
@all_kinds
def test_no_gradient_to_the_target(loss: Callable[..., Tensor], kind: str) -> None:
    output, target = (image.requires_grad_() for image in pair(kind))
    loss(output, target, largest(target)).backward()
    assert target.grad is None
    assert output.grad is not None and output.grad.abs().max() > 0


@all_losses
@all_kinds
def test_nan_stays_nan(loss: Callable[..., Tensor], kind: str) -> None:
    output, target = pair(kind)
    output[0, 0, 20, 20] = torch.nan
    values = loss(output, target, torch.ones(2), reduction="none")
    assert values[0].isnan() and values[1].isfinite()


@all_losses
@all_kinds
def test_autocast_does_not_change_the_value(loss: Callable[..., Tensor], kind: str) -> None:
    output, target = pair(kind)
    expected = loss(output, target, largest(target))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = loss(output, target, largest(target))
    torch.testing.assert_close(value, expected, rtol=1e-6, atol=0)


@all_losses
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_images_are_compared_in_float32(loss: Callable[..., Tensor], dtype: torch.dtype) -> None:
    output, target = (image.to(dtype) for image in pair("magnitude"))
    data_range = largest(target)
    expected = loss(output.float(), target.float(), data_range)
    torch.testing.assert_close(loss(output, target, data_range), expected, rtol=1e-6, atol=0)


@all_losses
def test_bad_images_are_named(loss: Callable[..., Tensor]) -> None:
    output, target = pair("complex")
    with pytest.raises(ValueError, match="must both be complex or both be magnitudes"):
        loss(output, target.abs(), torch.ones(2))
    with pytest.raises(ValueError, match="target must have the shape of output"):
        loss(output, target[:, :, :-1], torch.ones(2))
    for wrong in (output[:, 0], torch.cat([output, output], dim=1), output[:0]):
        with pytest.raises(ValueError, match=r"output must have shape \(batch, 1, rows, cols\)"):
            loss(wrong, wrong, torch.ones(2))
    with pytest.raises(ValueError, match="reduction must be 'mean' or 'none', got 'sum'"):
        loss(output, target, torch.ones(2), reduction="sum")


@with_data_range
def test_bad_data_range_is_named(loss: Callable[..., Tensor]) -> None:
    output, target = pair("magnitude")
    with pytest.raises(ValueError, match="needs data_range"):
        loss(output, target, None)
    with pytest.raises(ValueError, match=r"data_range must have shape \(2,\), got \(3,\)"):
        loss(output, target, torch.ones(3))
    for bad in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="data_range must be positive and finite"):
            loss(output, target, torch.tensor([1.0, bad]))


@with_data_range
def test_data_range_is_used_for_each_image(loss: Callable[..., Tensor]) -> None:
    output, target = pair("magnitude")
    both = loss(output, target, torch.tensor([1.0, 20.0]), reduction="none")
    torch.testing.assert_close(both[0], loss(output, target, 1.0, reduction="none")[0])
    torch.testing.assert_close(both[1], loss(output, target, 20.0, reduction="none")[1])
    assert both[1] < 0.9 * both[0]


def test_images_smaller_than_a_window_are_named() -> None:
    for loss, least in ((ssim_loss, 7), (dssim_loss, 11), (LOSSES["ms_ssim"][0], 21), (ms_ssim_loss, 161)):
        small = torch.rand(1, 1, least, least - 1)
        with pytest.raises(ValueError, match=rf"images of at least {least}x{least}, got \({least}, {least - 1}\)"):
            loss(small, small, 1.0)
        enough = torch.rand(1, 1, least, least)
        assert loss(enough, enough / 2, 1.0).isfinite()


def test_num_scales_that_fits_is_named() -> None:
    small = torch.rand(1, 1, 100, 50)
    with pytest.raises(ValueError, match="use num_scales=3 or less"):
        ms_ssim_loss(small, small, 1.0)
    assert ms_ssim_loss(small, small, 1.0, num_scales=3) == 0
    for bad in (0, 6, 2.0):
        for call in (MSSSIMLoss, partial(ms_ssim_loss, small, small, 1.0)):
            with pytest.raises(ValueError, match="num_scales must be an integer from 1 to 5, got"):
                call(num_scales=bad)


@all_kinds
def test_l1_l2_nmse_and_numpy(kind: str) -> None:
    output, target = pair(kind, batch=1)
    x, t = array(output), array(target)
    scale = np.sort(np.abs(t), axis=None)[int(np.ceil(0.95 * t.size)) - 1]
    parts = np.stack([(x - t).real, (x - t).imag]) if kind == "complex" else x - t
    assert l1_loss(output, target).item() == pytest.approx(np.abs(parts).mean() / scale, rel=1e-4)
    assert l2_loss(output, target).item() == pytest.approx((parts**2).mean() / scale**2, rel=1e-4)
    assert nmse_loss(output, target).item() == pytest.approx(fastmri.evaluate.nmse(t, x).item(), rel=1e-4)


@all_kinds
def test_ssim_and_fastmri(kind: str) -> None:
    output, target = pair(kind, batch=1)
    value, data_range = ssim_loss(output, target, 1.7).item(), torch.tensor([1.7])
    expected = fastmri.SSIMLoss()(output.abs(), target.abs(), data_range)
    assert value == pytest.approx(expected.item(), abs=1e-4)
    evaluated = fastmri.evaluate.ssim(array(target.abs())[None], array(output.abs())[None], maxval=1.7)
    assert value == pytest.approx(1 - evaluated.item(), abs=1e-4)


@all_kinds
def test_dssim_and_skimage_and_piq(kind: str) -> None:
    output, target = pair(kind, batch=1)
    value = dssim_loss(output * 1e-4, target * 1e-4, 2.5e-4).item()
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 2.5}
    expected = skimage.metrics.structural_similarity(array(output.abs()), array(target.abs()), **options)
    assert value == pytest.approx(1 - expected, abs=1e-4)
    expected = piq.ssim(output.abs(), target.abs(), data_range=2.5, downsample=False)
    assert value == pytest.approx(1 - expected.item(), abs=1e-4)
    # one scale of several is this
    assert ms_ssim_loss(output, target, 2.5, num_scales=1).item() == pytest.approx(value, rel=1e-4)


@all_kinds
def test_scores_of_readers_are_those_of_piq(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    output, target = pair(kind)
    output[0] *= 2  # above the data range, where an image is cut off
    data_range = largest(target)
    x, t = (x.abs().double() / data_range.double().reshape(-1, 1, 1, 1) for x in (output, target))
    x = x.clamp(max=1)
    for name, expected in {
        "haarpsi": piq.haarpsi(x, t, c=5.0, alpha=4.9, reduction="none"),
        "vsi": piq.vsi(x.expand(-1, 3, -1, -1), t.expand(-1, 3, -1, -1), reduction="none"),
        "gmsd": piq.gmsd(x, t, reduction="none"),
    }.items():
        found = reader_score(name, output, target, data_range)
        torch.testing.assert_close(found, expected.reshape(2).float(), rtol=1e-5, atol=1e-6)
    original = piq.haarpsi(x, t, reduction="none")
    found = haarpsi_loss(output, target, data_range, c=30.0, alpha=4.2, reduction="none")
    torch.testing.assert_close(found, (1 - original).float(), rtol=1e-4, atol=1e-6)
    with pytest.raises(ValueError, match="name must be one of haarpsi, vsi, gmsd, got 'dists'"):
        reader_score("dists", output, target, data_range)
    monkeypatch.setitem(sys.modules, "piq", None)
    with pytest.raises(ImportError, match=r"haarpsi needs piq .*pip install 'fastmri-ufloss\[scores\]'"):
        haarpsi_loss(output, target, data_range)


def test_ms_ssim_and_piq() -> None:
    output, target = pair("magnitude", batch=2, rows=256, cols=256)
    expected = piq.multi_scale_ssim(output, target, data_range=3.0, reduction="none")
    assert (1 - expected).min() > 1e-3
    torch.testing.assert_close(ms_ssim_loss(output, target, 3.0, reduction="none"), 1 - expected, rtol=0, atol=1e-4)
    # at odd ends piq repeats the first pixel, not the last
    output, target = (image[..., :43, :43] for image in (output, target))
    weights = torch.tensor([0.0448, 0.2856, 0.3001])
    expected = piq.multi_scale_ssim(output.flip(-1, -2), target.flip(-1, -2), data_range=3.0, scale_weights=weights)
    torch.testing.assert_close(ms_ssim_loss(output, target, 3.0, num_scales=3), 1 - expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", ["ssim", "dssim", "ms_ssim"])
def test_ssim_in_float32_is_that_in_float64(name: str) -> None:
    target = torch.zeros(1, 1, 64, 64)  # bright areas, where a variance is a small difference, and dark ones
    target[..., 32:, :] += 0.8
    target[..., 32:] += 0.2
    output = target + 1e-3 * torch.randn(target.shape, generator=torch.Generator().manual_seed(0))
    values, gradients = [], []
    for dtype in (torch.float32, torch.float64):
        x = output.to(dtype).requires_grad_()
        value = LOSSES[name][0](x, target.to(dtype), 1.0)
        values.append(value.item())
        gradients.append(torch.autograd.grad(value, x)[0].double())
    assert values[0] == pytest.approx(values[1], abs=2e-5)
    assert (gradients[0] - gradients[1]).norm() < 1e-3 * gradients[1].norm()


def test_ms_ssim_of_an_inverted_image_has_a_finite_gradient() -> None:
    target = torch.rand(1, 1, 40, 40, generator=torch.Generator().manual_seed(0)) + torch.linspace(0, 3, 40)
    pooled = nn.functional.avg_pool2d(target, 2).repeat_interleave(2, -1).repeat_interleave(2, -2)
    output = (2 * pooled - target).requires_grad_()  # the fine scale is inverted, the coarse one is not
    value = ms_ssim_loss(output, target, 3.0, num_scales=2)
    value.backward()
    assert 0.5 < value < 1
    assert output.grad is not None and output.grad.isfinite().all() and output.grad.abs().max() > 0


@pytest.mark.parametrize("shape", [(40, 36), (3, 4), (1, 5)])
def test_edge_and_skimage(shape: tuple[int, int]) -> None:
    output, target = pair("complex", batch=1, rows=shape[0], cols=shape[1])
    expected = [skimage.filters.sobel(array(image.abs())) for image in (output, target)]
    np.testing.assert_allclose(array(sobel_magnitude(output)), expected[0], rtol=1e-4, atol=1e-6)
    scale = np.sort(np.abs(array(target)), axis=None)[int(np.ceil(0.95 * target.numel())) - 1]
    mean = ((expected[0] - expected[1]) ** 2).mean() / scale**2
    assert edge_loss(output, target).item() == pytest.approx(mean, rel=1e-4)


@pytest.mark.parametrize("shape", [(40, 36), (5, 9)])
@all_kinds
def test_hfen_and_scipy(shape: tuple[int, int], kind: str) -> None:
    y, x = np.mgrid[-7:8, -7:8]  # MATLAB's fspecial('log', 15, 1.5), line by line
    h = np.exp(-(x * x + y * y) / (2 * 1.5**2))
    h /= h.sum()
    h = h * (x * x + y * y - 2 * 1.5**2) / 1.5**4
    h -= h.sum() / 15**2
    output, target = pair(kind, batch=1, rows=shape[0], cols=shape[1])
    expected = [scipy.ndimage.convolve(array(image), h, mode="nearest") for image in (output, target)]
    np.testing.assert_allclose(array(laplacian_of_gaussian(output)), expected[0], rtol=1e-4, atol=1e-6)
    ratio = np.linalg.norm(expected[0] - expected[1]) / np.linalg.norm(expected[1])
    assert hfen_loss(output, target).item() == pytest.approx(ratio, rel=1e-4)
    # scipy's own derivative of a Gaussian is cut off elsewhere and does not quite sum to 0
    similar = scipy.ndimage.gaussian_laplace(array(target.abs()), 1.5, mode="nearest")
    difference = array(laplacian_of_gaussian(target.abs())) - similar
    assert np.linalg.norm(difference) < 0.01 * np.linalg.norm(similar)


@pytest.mark.parametrize("shape", [(40, 36), (7, 5), (1, 4)])
@all_kinds
def test_frequency_and_fastmri(shape: tuple[int, int], kind: str) -> None:
    output, target = pair(kind, batch=1, rows=shape[0], cols=shape[1])
    kspace = [fastmri.fft2c(torch.view_as_real(image + 0j)).norm(dim=-1) for image in (output, target)]
    scale = np.sort(np.abs(array(target)), axis=None)[int(np.ceil(0.95 * target.numel())) - 1]
    mean = ((kspace[0] - kspace[1]) ** 2).mean().item() / scale**2
    assert frequency_loss(output, target).item() == pytest.approx(mean, rel=1e-4)
    # what a shift does to k-space is not seen
    assert frequency_loss(target.roll(1, dims=-1), target).item() < 1e-6


@pytest.mark.parametrize("filter_", [sobel_magnitude, laplacian_of_gaussian])
def test_filters_name_bad_images_and_take_half(filter_: Callable[[Tensor], Tensor]) -> None:
    with pytest.raises(ValueError, match=r"images must have shape \(batch, 1, rows, cols\), got \(5, 5\)"):
        filter_(torch.rand(5, 5))
    half = pair("magnitude")[0].half()
    torch.testing.assert_close(filter_(half), filter_(half.float()))
