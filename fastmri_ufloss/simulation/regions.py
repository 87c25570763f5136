"""Regions of a generated image, by the distance from their edge, negative inside; and noise that moves the edges."""

import numpy as np
from scipy import fft

__all__ = ["Point", "band_noise", "cut", "ellipse", "join", "segment", "smoothstep"]

Point = tuple[float, float]  # (x, y)


def band_noise(
    generator: np.random.Generator,
    shape: tuple[int, int],
    *,
    wavelength: float,
    bandwidth: float = 0.4,
    elongation: float = 1.0,
    angle: float = 0.0,
) -> np.ndarray:
    """Band-passed Gaussian noise of zero mean and unit variance.

        |N(f)| = exp(-(ln(|f'| wavelength) / bandwidth)^2 / 2),    f' = (f_along * elongation, f_across)

    Args:
        generator: of the noise.
        shape: (rows, cols).
        wavelength: of the centre of the band, across the structures, in pixels.
        bandwidth: of the band, in natural logarithms of the frequency.
        elongation: how many times longer the structures are than they are wide.
        angle: of their long axis against the rows' direction (downwards), in radians.

    Returns:
        The noise, float32 (rows, cols).
    """
    rows, cols = shape
    y, x = np.fft.fftfreq(rows)[:, None], np.fft.rfftfreq(cols)
    along = elongation * (np.cos(angle) * y + np.sin(angle) * x)
    across = np.cos(angle) * x - np.sin(angle) * y
    radius = np.sqrt(along**2 + across**2)
    radius[0, 0] = 1e-6
    gain = np.exp(-((np.log(radius * wavelength) / bandwidth) ** 2) / 2).astype(np.float32)
    spectrum = fft.rfft2(generator.standard_normal(shape, dtype=np.float32)) * gain
    noise = fft.irfft2(spectrum, s=shape)
    return noise / max(float(noise.std()), 1e-12)


def smoothstep(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """0 up to ``low``, 1 from ``high``, smooth between."""
    t = np.clip((values - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def join(a: np.ndarray, b: np.ndarray, blend: float = 0.04) -> np.ndarray:
    """Union of two regions with a rounded crease."""
    return -blend * np.logaddexp(-a / blend, -b / blend)


def cut(a: np.ndarray, b: np.ndarray, blend: float = 0.02) -> np.ndarray:
    """Common part of two regions with a rounded edge."""
    return blend * np.logaddexp(a / blend, b / blend)


def segment(x: np.ndarray, y: np.ndarray, start: Point, end: Point) -> np.ndarray:
    """Distance from the line between two points."""
    dx, dy = end[0] - start[0], end[1] - start[1]
    t = np.clip(((x - start[0]) * dx + (y - start[1]) * dy) / (dx * dx + dy * dy), 0, 1)
    return np.hypot(x - start[0] - t * dx, y - start[1] - t * dy)


def ellipse(x: np.ndarray, y: np.ndarray, width: float, height: float) -> np.ndarray:
    """About the distance from an ellipse of half axes ``width`` and ``height``."""
    return (np.hypot(x / width, y / height) - 1) * min(width, height)
