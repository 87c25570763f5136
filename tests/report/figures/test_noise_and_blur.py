"""Noise and blur on purpose, and curves of distances over them."""

import numpy as np
import pytest
import torch
from feature_nets import SmallFeatureNet
from helpers import DATA, needs_data, randn_complex
from skimage.metrics import structural_similarity
from torch import Tensor

from fastmri_ufloss.losses.ufloss import ufloss_per_image
from fastmri_ufloss.models import PatchFeatureNet, VGGFeatures
from fastmri_ufloss.mri.intensity import image_scale
from fastmri_ufloss.report.figures.noise_and_blur import (
    LEVELS,
    blurred,
    degradation_values,
    make_distances,
    noisy,
    summarize_curve,
)


def cropped_kspace(image: np.ndarray, factor: float) -> np.ndarray:
    """The image of the samples in the middle, by hand."""
    kspace = np.fft.fftshift(np.fft.fft2(image))
    for row, col in np.ndindex(*image.shape):
        away = [abs(i - n // 2) / n for i, n in zip((row, col), image.shape, strict=True)]
        if max(away) > 0.5 / factor:
            kspace[row, col] = 0
    return np.fft.ifft2(np.fft.ifftshift(kspace))


@pytest.mark.parametrize("shape", [(16, 20), (15, 21)])
@pytest.mark.parametrize("factor", [1.3, 2.0, 4.0])
def test_blur_keeps_the_center_of_kspace(shape: tuple[int, int], factor: float) -> None:
    images = randn_complex(2, 1, *shape, dtype=torch.complex128)
    for image, found in zip(images, blurred(images, factor), strict=True):
        np.testing.assert_allclose(found[0].numpy(), cropped_kspace(image[0].numpy(), factor), atol=1e-12)


def test_blur_of_magnitudes_is_the_magnitude() -> None:
    images = randn_complex(1, 1, 16, 16, dtype=torch.complex128).abs()
    found = blurred(images, 2.0)
    assert found.dtype == torch.float64
    expected = np.abs(cropped_kspace(images[0, 0].numpy(), 2.0))
    np.testing.assert_allclose(found[0, 0].numpy(), expected, atol=1e-12)


@pytest.mark.parametrize("images", [randn_complex(2, 1, 9, 8), randn_complex(2, 1, 9, 8).abs()])
def test_level_without_effect_gives_the_images(images: Tensor) -> None:
    for found in (noisy(images, 0.0), blurred(images, 1.0)):
        assert found.dtype == images.dtype and torch.equal(found, images)


def test_noise_is_mixed_in_at_the_scale_of_each_image() -> None:
    images = randn_complex(2, 1, 200, 200, dtype=torch.complex128) * torch.tensor([1.0, 1e-4]).reshape(2, 1, 1, 1)
    share = 0.1
    found = (noisy(images, share) - (1 - share) * images) / share
    deviation = found.flatten(1).abs().square().mean(dim=1).sqrt()
    torch.testing.assert_close(deviation, image_scale(images), rtol=0.02, atol=0)
    parts = torch.view_as_real(found).std(dim=(1, 2, 3)) / image_scale(images)[:, None]
    torch.testing.assert_close(parts, torch.full((2, 2), 0.5**0.5, dtype=torch.float64), rtol=0.02, atol=0)


def test_noise_of_magnitudes_is_that_of_a_scanner() -> None:
    images = randn_complex(1, 1, 32, 32).abs()
    found = noisy(images, 0.3, seed=4)
    expected = noisy(images + 0j, 0.3, seed=4).abs()
    torch.testing.assert_close(found, expected)
    assert not found.is_complex() and float(found.min()) >= 0


def test_noise_is_the_same_at_each_level_and_another_for_each_seed() -> None:
    images = randn_complex(1, 1, 8, 8, dtype=torch.complex128)
    noise = [(noisy(images, share, seed=1) - (1 - share) * images) / share for share in (0.1, 0.5)]
    torch.testing.assert_close(*noise)
    assert not torch.allclose(noisy(images, 0.1, seed=1), noisy(images, 0.1, seed=2))


def test_global_generator_is_not_used() -> None:
    state = torch.get_rng_state()
    noisy(randn_complex(1, 1, 8, 8), 0.1)
    assert torch.equal(state, torch.get_rng_state())


def test_levels_are_none_and_ten_up_to_those_of_the_paper() -> None:
    for kind, ends in (("noise", (0.0, 0.1)), ("blur", (1.0, 4.0))):
        assert (LEVELS[kind][0], LEVELS[kind][-1]) == ends and len(LEVELS[kind]) == 11


@pytest.mark.parametrize("in_chans", [1, 2])
def test_values_are_those_of_the_losses(in_chans: int) -> None:
    image = randn_complex(24, 20, seed=3)
    image = image if in_chans == 2 else image.abs()
    net = SmallFeatureNet(in_chans)
    found = degradation_values(make_distances(net, stride=4), image, seed=5)
    target = image[None, None]
    for kind, changed in (("noise", noisy(target, 0.1, seed=5)), ("blur", blurred(target, 4.0))):
        assert list(found[kind]) == ["UFLoss", "MSE", "DSSIM"]
        assert all(values[0] == 0 for name, values in found[kind].items() if name != "DSSIM")
        assert abs(found[kind]["DSSIM"][0]) < 1e-12
        expected = float(ufloss_per_image(net, changed, target, stride=4))
        assert found[kind]["UFLoss"][-1] == pytest.approx(expected, rel=1e-5) and expected > 0
        similarity = structural_similarity(
            changed.abs().double().numpy()[0, 0], image.abs().double().numpy(), data_range=float(image.abs().max()),
            gaussian_weights=True, sigma=1.5, use_sample_covariance=False,
        )  # fmt: skip
        assert found[kind]["DSSIM"][-1] == pytest.approx(1 - similarity, rel=1e-4)


def test_unit_does_not_matter() -> None:
    image = randn_complex(24, 20, seed=3)  # not the noise of seed 0
    distances = make_distances(SmallFeatureNet(), vgg=VGGFeatures("vgg16").eval(), stride=4)
    first, second = (degradation_values(distances, gain * image) for gain in (1.0, 1e-4))
    for kind, by_name in first.items():
        assert "VGG" in by_name
        for name, values in by_name.items():
            assert values[-1] > 0
            np.testing.assert_allclose(values[1:], second[kind][name][1:], rtol=1e-3)


def test_shape_of_a_curve_is_described() -> None:
    levels = [0.0, 1.0, 2.0, 4.0]
    convex = summarize_curve(levels, [[0, 1, 4, 16], [0, 3, 12, 48]])
    assert convex["mean"] == [0, 2, 8, 32] and convex["std"] == [0, 1, 4, 16]
    assert (convex["spearman"], convex["rising"], convex["convex"]) == (1.0, 1.0, 1.0)
    concave = summarize_curve(levels, [[0, 4, 6, 7], [0, 2, 1.5, 2]])
    assert (concave["spearman"], concave["rising"], concave["convex"]) == (1.0, 0.5, 0.0)
    # a line over levels that are not evenly spaced is convex
    assert summarize_curve(levels, [[0, 2, 4, 8]])["convex"] == 1.0
    assert summarize_curve(levels, [[3, 2, 1, 0]])["spearman"] == -1.0
    assert summarize_curve(levels, [[0, 2, 1, 3]])["spearman"] == pytest.approx(0.8)  # 1 - 6 * 2 / (4 * 15)
    assert summarize_curve(levels, [[1, 1, 1, 1]])["spearman"] is None


@needs_data()
def test_ufloss_of_real_images_rises_with_noise_and_blur() -> None:
    torch.manual_seed(0)
    distances = make_distances(PatchFeatureNet(1, patch_size=40).eval(), stride=54)
    images = [np.load(DATA / "sunnybrook" / f"SC-N-{name}.npz")["images"][8] for name in ("02", "03")]
    found = [degradation_values(distances, torch.from_numpy(image).float()) for image in images]
    for kind, levels in LEVELS.items():
        curve = summarize_curve(levels, [values[kind]["UFLoss"] for values in found])
        assert curve["mean"][0] == 0 and curve["spearman"] == pytest.approx(1.0)


def test_bad_input_is_named() -> None:
    distances = make_distances(SmallFeatureNet())
    with pytest.raises(ValueError, match="at least as large as a patch of 8x8, got 6x20"):
        degradation_values(distances, randn_complex(6, 20))
    images = randn_complex(1, 1, 8, 8)
    with pytest.raises(ValueError, match=r"fraction must be from 0 to 1, got 1\.5"):
        noisy(images, 1.5)
    with pytest.raises(ValueError, match=r"factor must be at least 1, got 0\.5"):
        blurred(images, 0.5)
    with pytest.raises(ValueError, match=r"images must be complex or real with shape"):
        blurred(images[0, 0], 2.0)
    with pytest.raises(ValueError, match=r"images must be complex or real with shape"):
        noisy(torch.ones(1, 1, 4, 4, dtype=torch.int64), 0.1)
