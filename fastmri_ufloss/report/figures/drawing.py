"""What the figures share: gray scales, squares to enlarge, colors of methods, and how a figure is written."""

from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import hsv_to_rgb, to_hex
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from fastmri_ufloss.files import atomic_path

_SUFFIXES = (".png", ".jpg", ".jpeg", ".pdf")
# told apart by the color-blind (Okabe and Ito, and two more), on white and on black
_METHOD_COLORS = ("#56B4E9", "#E69F00", "#009E73", "#CC79A7", "#0A7ABF", "#D55E00", "#8F7EE0", "#8A8A8A", "#B5A41D")

Square = tuple[int, int, int]
"""Row and column of the upper left corner, and the side."""


def write_figure(path: str | Path, figure: Figure, *, dpi: int) -> None:
    """A figure is written as a PNG, JPG or PDF, in one step; another suffix raises ValueError."""
    suffix = Path(path).suffix.lower()
    if suffix not in _SUFFIXES:
        raise ValueError(f"path must end in one of {', '.join(_SUFFIXES)}, got {str(path)!r}")
    # without the time, so that the same figure is the same file
    metadata = {"CreationDate": None} if suffix == ".pdf" else None
    # text in a PDF stays text: TrueType rather than outlines of Type 3, which publishers refuse
    with atomic_path(path) as temporary, matplotlib.rc_context({"pdf.fonttype": 42}):
        figure.savefig(temporary, format=suffix[1:], dpi=dpi, metadata=metadata)


def method_color(index: int) -> str:
    """The color of a method by its place, ``#RRGGBB``: no two methods have the same."""
    if index < len(_METHOD_COLORS):
        return _METHOD_COLORS[index]
    further = index - len(_METHOD_COLORS)
    # hues by the golden ratio never come twice
    return to_hex(tuple(hsv_to_rgb([(0.05 + further * 0.618034) % 1, 0.9, 0.6 + 0.15 * (further % 2)])))


def white_of(image: np.ndarray) -> float:
    """The magnitude that is shown white: the 99.5th percentile; of an empty image the maximum, or 1."""
    return float(np.percentile(image, 99.5)) or float(image.max()) or 1.0


def textured_squares(image: np.ndarray, side: int, *, count: int = 1, organ: bool = False) -> list[Square]:
    """Squares of an image (rows, cols) that do not overlap, that with the largest sum of gradients first.

    There are fewer than ``count`` where there is no room for more. For an ``organ`` the image is clipped at its 95th
    percentile, or else bright fat draws the squares.
    """
    image = np.minimum(image, np.percentile(image, 95)) if organ else image
    gradients = np.hypot(*np.gradient(image)) if min(image.shape) > 1 else np.zeros_like(image)
    sums = np.pad(gradients, ((1, 0), (1, 0))).cumsum(axis=0).cumsum(axis=1)
    energy = sums[side:, side:] - sums[:-side, side:] - sums[side:, :-side] + sums[:-side, :-side]
    squares: list[Square] = []
    while len(squares) < count:
        row, col = (int(i) for i in np.unravel_index(int(np.argmax(energy)), energy.shape))
        if squares and energy[row, col] == -np.inf:
            break
        squares.append((row, col, side))
        energy[max(row - side + 1, 0) : row + side, max(col - side + 1, 0) : col + side] = -np.inf
    return squares


def most_textured(image: np.ndarray, *, organ: bool = False) -> Square:
    """The square, a third of the image wide, with the largest gradients, see `textured_squares`."""
    return textured_squares(image, max(min(image.shape) // 3, 1), organ=organ)[0]


def cut(image: np.ndarray, square: Square) -> np.ndarray:
    """The part of an image in a square."""
    row, col, side = square
    return image[row : row + side, col : col + side]


def show(axis: Axes, image: np.ndarray, white: float, *, heat: bool = False, **options: object) -> None:
    """An image in gray, or as a heat map, from 0 to ``white``; options as of ``imshow``."""
    axis.imshow(image, cmap="inferno" if heat else "gray", vmin=0, vmax=white, **options)  # type: ignore[arg-type]


def show_with_zoom(
    whole: Axes, zoom: Axes, image: np.ndarray, white: float, square: Square, *, linewidth: float = 1.0
) -> None:
    """An image with the outline of a square, and the square alone."""
    show(whole, image, white)
    outline(whole, square, linewidth=linewidth)
    show(zoom, cut(image, square), white)


def outline(axis: Axes, square: Square, *, color: str = "gold", linewidth: float = 1.0) -> None:
    """A frame around the pixels of a square."""
    row, col, side = square
    frame = Rectangle((col - 0.5, row - 0.5), side, side, fill=False, edgecolor=color, linewidth=linewidth)
    axis.add_patch(frame)


def hide_frame(axis: Axes) -> None:
    """As ``set_axis_off``, but the labels stay."""
    axis.set(xticks=[], yticks=[])
    axis.spines[:].set_visible(False)
