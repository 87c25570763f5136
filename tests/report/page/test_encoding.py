import base64
import zlib

import numpy as np
import pytest

from fastmri_ufloss.report.page.html_page import BITS, encode_classes, encode_image


def decode(stored: dict) -> np.ndarray:
    """As the docstring says it, and as the page does."""
    rows, cols = stored["rows"], stored["cols"]
    planes = np.frombuffer(zlib.decompress(base64.b64decode(stored["data"])), np.uint8).reshape(2, rows, cols)
    unsigned = planes[0].astype(int) * 256 + planes[1]
    differences = np.where(unsigned % 2 == 1, -(unsigned + 1) // 2, unsigned // 2)
    levels = np.zeros((rows + 1, cols + 1), int)
    for row in range(rows):
        for col in range(cols):
            levels[row + 1, col + 1] = differences[row, col] + (levels[row, col + 1] + levels[row + 1, col]) // 2
    return stored["low"] + stored["step"] * levels[1:, 1:]


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e4])
@pytest.mark.parametrize("low", [0.0, -0.3])
def test_every_pixel_is_at_most_half_a_step_from_its_value(scale: float, low: float) -> None:
    rng = np.random.default_rng(0)
    image = scale * (low + rng.random((17, 23)) ** 3)
    image[0, 0], image[5, 5] = scale * low, scale * (1 + low)  # both ends, far apart
    half_step = scale * (1 - min(low, 0) + min(low, 0)) / (2**BITS - 1) / 2
    np.testing.assert_allclose(decode(encode_image(image)), image, rtol=0, atol=1.0001 * half_step)


def test_extremes_of_the_difference_are_kept() -> None:
    image = np.zeros((6, 6))
    image[::2, ::2] = image[1::2, 1::2] = 1  # a chequerboard: all levels by turns
    np.testing.assert_allclose(decode(encode_image(image)), image, atol=1e-12)


@pytest.mark.parametrize("image", [np.zeros((3, 4)), np.full((1, 1), 2e-5), np.full((2, 2), -1.0)])
def test_constant_images(image: np.ndarray) -> None:
    np.testing.assert_allclose(decode(encode_image(image)), image, rtol=1e-9)


def test_classes_are_as_they_were() -> None:
    classes = np.random.default_rng(0).integers(0, 256, (5, 7))
    stored = encode_classes(classes)
    found = np.frombuffer(zlib.decompress(base64.b64decode(stored["data"])), np.uint8).reshape(5, 7)
    np.testing.assert_array_equal(found, classes)


def test_bad_arguments_are_named() -> None:
    for bad in (np.zeros(3), np.zeros((0, 3)), np.zeros((2, 2), complex)):
        with pytest.raises(ValueError, match=r"image must be real and finite \(rows, cols\)"):
            encode_image(bad)
    with pytest.raises(ValueError, match="image must be real and finite"):
        encode_image(np.array([[1.0, np.nan]]))
    for bad in (np.full((2, 2), 256), np.full((2, 2), -1), np.zeros(3, int)):
        with pytest.raises(ValueError, match="classes must be numbers from 0 to 255"):
            encode_classes(bad)
