"""What pictures and the page have in common: the colour of a method, and what is shown white."""

import numpy as np
from matplotlib.colors import hsv_to_rgb, to_hex

__all__ = ["method_color", "white_of"]

# told apart by the colour-blind (Okabe and Ito, and two more), on white and on black
_METHOD_COLORS = ("#56B4E9", "#E69F00", "#009E73", "#CC79A7", "#0A7ABF", "#D55E00", "#8F7EE0", "#8A8A8A", "#B5A41D")


def method_color(index: int) -> str:
    """The colour of a method by its place, ``#RRGGBB``: no two methods have one."""
    if index < len(_METHOD_COLORS):
        return _METHOD_COLORS[index]
    further = index - len(_METHOD_COLORS)
    # hues by the golden ratio never come twice
    red, green, blue = hsv_to_rgb([(0.05 + further * 0.618034) % 1, 0.9, 0.6 + 0.15 * (further % 2)]).tolist()
    return str(to_hex((red, green, blue)))


def white_of(reference: np.ndarray) -> float:
    """The magnitude that is shown white: the 99.5th percentile; of an empty image the maximum, or 1."""
    return float(np.percentile(reference, 99.5)) or float(reference.max()) or 1.0
