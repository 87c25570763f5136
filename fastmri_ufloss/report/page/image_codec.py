"""Images as text in a page: quantised, without further loss, small."""

import base64
import zlib
from typing import Any

import numpy as np

__all__ = ["BITS", "encode_classes", "encode_image"]

BITS = 14
"""A step is 1/16383 of the image's range: an error map enlarged 60 times has no steps on a screen of 256 levels."""
_COMPRESSION = 6


def encode_image(image: np.ndarray) -> dict[str, Any]:
    """An image (rows, cols) of 2^14 levels between its ends; each pixel is at most half a step from its value.

    pixel = low + step * level, with low = min(0, minimum) and step = (maximum - low) / (2^14 - 1). The levels are
    stored as differences from the mean of the left and the upper level, 0 outside, rounded down; a difference d as
    2 d or, below 0, -2 d - 1; the high bytes of all pixels before the low bytes; zlib; base64.

    Args:
        image: finite real numbers.

    Returns:
        ``rows``, ``cols``, ``low``, ``step`` and ``data`` for JSON.

    Raises:
        ValueError: if image has not two axes, is empty, complex or not finite.
    """
    if image.ndim != 2 or image.size == 0 or np.iscomplexobj(image):
        raise ValueError(f"image must be real (rows, cols), got {image.dtype} {image.shape}")
    if not np.isfinite(image).all():
        raise ValueError("image must be finite, got NaN or infinity")
    values = image.astype(np.float64)
    low = min(0.0, float(values.min()))
    step = (float(values.max()) - low) / (2**BITS - 1) or 1.0
    levels = np.rint((values - low) / step).astype(np.int64)
    framed = np.pad(levels, ((1, 0), (1, 0)))
    difference = levels - ((framed[1:, :-1] + framed[:-1, 1:]) >> 1)
    unsigned = np.where(difference < 0, -2 * difference - 1, 2 * difference)
    planes = np.stack([unsigned >> 8, unsigned & 255]).astype(np.uint8)
    return {"rows": image.shape[0], "cols": image.shape[1], "low": low, "step": step, "data": _text(planes)}


def encode_classes(classes: np.ndarray) -> dict[str, Any]:
    """Class numbers (rows, cols) from 0 to 255: one byte a pixel; zlib; base64.

    Raises:
        ValueError: if classes has not two axes or holds another number.
    """
    if classes.ndim != 2 or classes.size == 0 or classes.min() < 0 or classes.max() > 255:
        raise ValueError(f"classes must be numbers from 0 to 255 (rows, cols), got shape {classes.shape}")
    return {"rows": classes.shape[0], "cols": classes.shape[1], "data": _text(classes.astype(np.uint8))}


def _text(array: np.ndarray) -> str:
    return base64.b64encode(zlib.compress(np.ascontiguousarray(array).tobytes(), _COMPRESSION)).decode("ascii")
