"""How sharp an image is, without a reference."""

import math

import numpy as np
from skimage.measure import blur_effect

__all__ = ["sharpness"]


def sharpness(image: np.ndarray) -> float:
    """1 - the blur metric of Crété-Roffet et al., scikit-image's ``blur_effect`` with windows of 11 pixels.

    An image is blurred once more along its rows and along its columns; the metric is the share of the differences
    of neighbouring pixels that survives this, the larger one of the two directions. What is blurred already changes
    little. The value lies in 0 .. 1 and does not depend on the unit of the image. Noise and aliasing are sharp as
    well: more is not simply better, and an image should be about as sharp as its reference. An image with one value
    everywhere has none: nan.

    Args:
        image: magnitude (rows, cols).

    Raises:
        ValueError: if it has another number of axes.

    Crété-Roffet et al., "The blur effect: perception and estimation with a new no-reference perceptual blur
    metric", SPIE 6492, 2007.
    """
    if image.ndim != 2:
        raise ValueError(f"image must have shape (rows, cols), got {image.shape}")
    if image.min() == image.max():
        return math.nan
    # scikit-image has a floor for gradients, which images of another unit would fall below
    return 1 - float(blur_effect(image.astype(np.float64) / float(np.abs(image).max())))
