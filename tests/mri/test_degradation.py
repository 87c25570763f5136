"""Noise and blur on purpose."""

import numpy as np
import pytest
import torch
from helpers import randn_complex
from torch import Tensor

from fastmri_ufloss.mri.degradation import blurred, noisy
from fastmri_ufloss.mri.intensity import image_scale


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
def test_blur_keeps_the_centre_of_kspace(shape: tuple[int, int], factor: float) -> None:
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


def test_bad_input_is_named() -> None:
    images = randn_complex(1, 1, 8, 8)
    with pytest.raises(ValueError, match=r"share must be from 0 to 1, got 1\.5"):
        noisy(images, 1.5)
    with pytest.raises(ValueError, match=r"factor must be at least 1, got 0\.5"):
        blurred(images, 0.5)
    with pytest.raises(ValueError, match=r"images must be complex or real with shape"):
        blurred(images[0, 0], 2.0)
    with pytest.raises(ValueError, match=r"images must be complex or real with shape"):
        noisy(torch.ones(1, 1, 4, 4, dtype=torch.int64), 0.1)
