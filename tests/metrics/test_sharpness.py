import numpy as np
import pytest
from scipy import ndimage
from skimage.measure import blur_effect

from fastmri_ufloss.metrics.sharpness import sharpness


def image() -> np.ndarray:
    shapes = np.zeros((48, 40))
    shapes[10:30, 8:30] = 1
    shapes[15:20, 12:18] = 0.5
    return shapes + 0.05 * np.random.default_rng(0).random(shapes.shape)


def test_falls_with_blur_and_rises_with_noise() -> None:
    values = [sharpness(ndimage.gaussian_filter(image(), sigma)) for sigma in (0, 0.5, 1, 2, 4)]
    assert values == sorted(values, reverse=True) and values[0] - values[-1] > 0.2
    smooth, noise = ndimage.gaussian_filter(image(), 2), np.random.default_rng(1).normal(size=image().shape)
    assert sharpness(smooth + 0.02 * noise) > sharpness(smooth) + 0.05


def test_is_that_of_scikit_image_in_any_unit() -> None:
    assert sharpness(image()) == pytest.approx(1 - blur_effect(image()))
    assert sharpness((image() * 1e-14).astype(np.float32)) == pytest.approx(sharpness(image()), rel=1e-5)


@pytest.mark.parametrize("value", [0.0, 3.0, 1e-7])
def test_an_image_of_one_value_has_none(value: float) -> None:
    assert np.isnan(sharpness(np.full((20, 20), value)))


def test_wants_one_image() -> None:
    with pytest.raises(ValueError, match=r"must have shape \(rows, cols\), got \(2, 20, 20\)"):
        sharpness(np.ones((2, 20, 20)))
