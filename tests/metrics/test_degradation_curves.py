"""Curves of distances over noise and blur."""

import numpy as np
import pytest
import torch
from feature_nets import SmallFeatureNet
from helpers import DATA, needs_data, randn_complex
from skimage.metrics import structural_similarity

from fastmri_ufloss.losses.ufloss import ufloss_per_image
from fastmri_ufloss.metrics.degradation_curves import (
    BLUR,
    NOISE,
    degradation_values,
    make_distances,
    summarize_curve,
)
from fastmri_ufloss.models import PatchFeatureNet, VGGFeatures
from fastmri_ufloss.mri.degradation import blurred, noisy


def test_levels_are_none_and_ten_up_to_those_of_the_paper() -> None:
    assert (NOISE[0], NOISE[-1], len(NOISE)) == (0.0, 0.1, 11)
    assert (BLUR[0], BLUR[-1], len(BLUR)) == (1.0, 4.0, 11)


@pytest.mark.parametrize("in_chans", [1, 2])
def test_values_are_those_of_the_losses(in_chans: int) -> None:
    image = randn_complex(24, 20, seed=3)
    image = image if in_chans == 2 else image.abs()
    net = SmallFeatureNet(in_chans)
    found = degradation_values(make_distances(net, stride=4), image, noise=(0.0, 0.2), blur=(1.0, 2.0), seed=5)
    target = image[None, None]
    for kind, changed in (("noise", noisy(target, 0.2, seed=5)), ("blur", blurred(target, 2.0))):
        assert list(found[kind]) == ["UFLoss", "MSE", "DSSIM"]
        assert all(values[0] == 0 for name, values in found[kind].items() if name != "DSSIM")
        assert abs(found[kind]["DSSIM"][0]) < 1e-12
        expected = float(ufloss_per_image(net, changed, target, stride=4))
        assert found[kind]["UFLoss"][1] == pytest.approx(expected, rel=1e-5) and expected > 0
        similarity = structural_similarity(
            changed.abs().double().numpy()[0, 0], image.abs().double().numpy(), data_range=float(image.abs().max()),
            gaussian_weights=True, sigma=1.5, use_sample_covariance=False,
        )  # fmt: skip
        assert found[kind]["DSSIM"][1] == pytest.approx(1 - similarity, rel=1e-4)


def test_unit_does_not_matter() -> None:
    image = randn_complex(24, 20, seed=3)  # not the noise of seed 0
    distances = make_distances(SmallFeatureNet(), vgg=VGGFeatures("vgg16").eval(), stride=4)
    settings = {"noise": (0.0, 0.1), "blur": (1.0, 2.0)}
    first, second = (degradation_values(distances, gain * image, **settings) for gain in (1.0, 1e-4))
    for kind, by_name in first.items():
        assert "VGG" in by_name
        for name, values in by_name.items():
            assert values[1] > 0
            np.testing.assert_allclose(values[1], second[kind][name][1], rtol=1e-3)


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
    for kind, levels in (("noise", NOISE), ("blur", BLUR)):
        curve = summarize_curve(levels, [values[kind]["UFLoss"] for values in found])
        assert curve["mean"][0] == 0 and curve["spearman"] == pytest.approx(1.0)


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match=r"levels must be at least three numbers that rise, got \[0, 1\]"):
        summarize_curve([0, 1], [[0, 1]])
    with pytest.raises(ValueError, match=r"values must have shape \(images, 3\), got \(1, 2\)"):
        summarize_curve([0, 1, 2], [[0, 1]])
    distances = make_distances(SmallFeatureNet())
    with pytest.raises(ValueError, match="image must be finite with shape"):
        degradation_values(distances, torch.full((20, 20), torch.nan))
    with pytest.raises(ValueError, match="at least as large as a patch of 8x8, got 6x20"):
        degradation_values(distances, randn_complex(6, 20))
