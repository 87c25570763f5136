"""Figures 5B, S1 and S2 of the UFLoss paper: where a patch finds its like in some images, by features and by SSIM."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from torch import Tensor, nn

from fastmri_ufloss.losses.ssim import ssim_loss
from fastmri_ufloss.losses.ufloss import patch_features
from fastmri_ufloss.mri.intensity import image_scale
from fastmri_ufloss.report.figures import drawing
from fastmri_ufloss.report.figures.images import FigureImages, Place
from fastmri_ufloss.report.figures.retrieval import features_at, textured_corners

__all__ = ["MappedImage", "draw_correlation_maps", "save_best_matches", "save_correlation_maps"]

PATCH_COLORS = ("limegreen", "deepskyblue", "orange", "magenta")
NUM_PATCHES = 2  # unless the user says which
_COLUMN, _CELL = 2.1, 1.5  # inches

Corner = tuple[int, int]


class MappedImage(NamedTuple):
    """A magnitude image (rows, cols) and, by measure, its maps for each source patch, (patches, rows, cols)."""

    name: str
    image: np.ndarray
    maps: Mapping[str, np.ndarray]


def feature_maps(
    feature_net: nn.Module, source: Tensor, corners: Tensor, image: Tensor, *, stride: int, chunk_size: int = 256
) -> Tensor:
    """Inner products of the features of n patches of a source, see `features_at`, with those on a grid of an image.

    The grid starts at the upper left corner: (n, rows of the grid, columns of the grid), from -1 to 1. An image
    smaller than a patch raises ValueError.
    """
    wanted = features_at(feature_net, source, corners, chunk_size=chunk_size)
    scale = image_scale(image[None])
    features = patch_features(feature_net, image[None, None], scale, stride=stride, chunk_size=chunk_size)[0]
    rows = (image.shape[0] - int(feature_net.patch_size)) // stride + 1  # type: ignore[arg-type]
    return (wanted @ features.T).reshape(len(corners), rows, -1)


def ssim_maps(
    source: Tensor, corners: Tensor, image: Tensor, *, patch_size: int, stride: int, chunk_size: int = 256
) -> Tensor:
    """SSIM, instead of the inner products of `feature_maps`; of complex images, of the magnitudes.

    SSIM is fastMRI's, with windows of 7x7 inside the patch. Each image is divided by its `image_scale` first, since
    SSIM minds the brightness; the data range is the source's largest value then.
    """
    source, image = (part.abs() / image_scale(part[None]) for part in (source, image))
    data_range = source.max().clamp(min=torch.finfo(source.dtype).tiny)
    if min(*source.shape, *image.shape) < patch_size:
        got = f"{tuple(source.shape)} and {tuple(image.shape)}"
        raise ValueError(f"images must be at least as large as a patch of {patch_size}x{patch_size}, got {got}")
    patches = image.unfold(0, patch_size, stride).unfold(1, patch_size, stride)
    grid = patches.shape[:2]
    maps = []
    for row, col in corners.tolist():
        wanted = source[row : row + patch_size, col : col + patch_size].expand(1, 1, -1, -1)
        values = []
        for numbers in torch.arange(grid.numel()).split(chunk_size):
            chunk = patches[numbers // grid[1], numbers % grid[1]].unsqueeze(1)
            values.append(1 - ssim_loss(chunk, wanted.expand_as(chunk), data_range, reduction="none"))
        maps.append(torch.cat(values).reshape(grid))
    return torch.stack(maps)


def best_match(values: np.ndarray, *, stride: int) -> tuple[int, int, float]:
    """Row and column of the patch with the largest value of a map (rows, cols) of a grid, and that value."""
    row, col = (int(i) for i in np.unravel_index(int(values.argmax()), values.shape))
    return row * stride, col * stride, float(values[row, col])


def draw_correlation_maps(
    path: Path,
    images: FigureImages,
    source: Place,
    *,
    corners: Sequence[Sequence[int]] | None = None,
    others: FigureImages | None = None,
    stride: int = 4,
    chunk_size: int = 256,
) -> tuple[dict[str, Any], list[Path], list[str]]:
    """The figure and, where there are several images, ``*_best.*`` beside it with the best patches are written.

    The source is compared with itself, with the slice at the same height of the next volume of another subject with
    the same contrast, with that of a subject with another contrast, and with the middle of ``others``. The numbers,
    the files, and what the folder does not have, in words, are returned.

    Args:
        images: folder of the source.
        corners: upper left corners of the source patches; the most textured ones, put on the grid, if not given.
        others: a folder with images of another kind.
        stride: of the grid, which starts at the upper left corner.
        chunk_size: patches that go through the network at once.

    Raises:
        ValueError: if a source patch is not inside its image.
    """
    net, image = images.net, images.read(source)
    if corners is None:
        textured = textured_corners(image, net.patch_size, NUM_PATCHES)
        corners = [(row // stride * stride, col // stride * stride) for row, col in textured]
    where = [(row, col) for row, col in corners]
    targets = {f"same image\n{images.label(source)}": image}
    missing = []
    contrast = images.volumes[source[0]].contrast
    for name, what, is_same in (
        ("another subject", f"with contrast {contrast!r}", True),
        ("another subject and contrast", f"with another contrast than {contrast!r}", False),
    ):
        place = _other_subject(images, source, is_same=is_same)
        if place is None:
            missing.append(f"other subject {what}")
        else:
            targets[f"{name}\n{images.label(place)}"] = images.read(place)
    if others is not None:
        middle = others.place(None, None, otherwise=len(others.volumes) // 2)
        targets[f"other data\n{others.label(middle)}"] = others.read(middle)
    grid = {"stride": stride, "chunk_size": chunk_size}
    mapped = []
    for name, target in targets.items():
        products = feature_maps(net, image, torch.tensor(where), target, **grid)
        similarities = ssim_maps(image, torch.tensor(where), target, patch_size=net.patch_size, **grid)
        maps = {"UFLoss": products.cpu().numpy(), "SSIM": similarities.cpu().numpy()}
        mapped.append(MappedImage(name, target.abs().cpu().numpy(), maps))
    save_correlation_maps(path, mapped, where, patch_size=net.patch_size, stride=stride)
    paths = [path]
    if len(mapped) > 1:
        paths.append(path.with_name(f"{path.stem}_best{path.suffix}"))
        save_best_matches(paths[1], mapped, where, patch_size=net.patch_size, stride=stride)
    rows = [
        {"corner": list(corner), "images": [_describe(item, index, stride) for item in mapped]}
        for index, corner in enumerate(where)
    ]
    return {"source": images.label(source), "stride": stride, "patches": rows}, paths, missing


def _other_subject(images: FigureImages, source: Place, *, is_same: bool) -> Place | None:
    """The slice at the same height of the next volume of another subject, of the same contrast or of another."""
    number, slice_num = source
    volume = images.volumes[number]
    for index in (*range(number + 1, len(images.volumes)), *range(number)):
        other = images.volumes[index]
        if other.subject != volume.subject and (other.contrast == volume.contrast) == is_same:
            return index, int((slice_num + 0.5) / volume.shape[0] * other.shape[0])
    return None


def _describe(item: MappedImage, index: int, stride: int) -> dict[str, Any]:
    """The best match of a patch in an image, by measure, and how far it stands out of the map."""
    row: dict[str, Any] = {"image": item.name.replace("\n", ": ")}
    for measure, maps in item.maps.items():
        *corner, best = best_match(maps[index], stride=stride)
        mean, std = float(maps[index].mean()), float(maps[index].std())
        row[measure] = {"best_corner": corner, "best": best, "mean": mean, "std": std}
    return row


def save_correlation_maps(
    path: str | Path, images: Sequence[MappedImage], corners: Sequence[Corner], *, patch_size: int, stride: int
) -> None:
    """A PNG, JPG or PDF has a row for each image: the image, and for each measure and source patch the map.

    A source patch has the color of the border of its maps. A map shows positive values only, at the center of each
    patch; a white cross is where it is largest. No image, or not 1 to 4 patches, raise ValueError.
    """
    if not images or not 1 <= len(corners) <= len(PATCH_COLORS):
        most, got = len(PATCH_COLORS), f"{len(images)} and {len(corners)}"
        raise ValueError(f"images and corners must be at least one and from 1 to {most}, got {got}")
    columns = [(measure, index) for measure in images[0].maps for index in range(len(corners))]
    heights = [_COLUMN * item.image.shape[0] / item.image.shape[1] for item in images]
    figure = Figure(figsize=(_COLUMN * (1 + len(columns)) + 0.9, sum(heights) + 0.35), layout="constrained")
    axes = figure.subplots(len(images), 1 + len(columns), squeeze=False, height_ratios=heights)
    for item, (whole, *cells) in zip(images, axes, strict=True):
        drawing.show(whole, item.image, drawing.white_of(item.image))
        whole.set(xticks=[], yticks=[])
        whole.set_ylabel(item.name, fontsize=8.5)
        for axis, (measure, index) in zip(cells, columns, strict=True):
            _draw_map(axis, item.image.shape, item.maps[measure][index], patch_size, stride)
            _frame(axis, PATCH_COLORS[index])
    for (row, col), color in zip(corners, PATCH_COLORS, strict=False):
        drawing.outline(axes[0, 0], (row, col, patch_size), color=color, linewidth=1.6)
    for axis, title in zip(axes[0], ("image", *(measure for measure, _ in columns)), strict=True):
        axis.set_title(title, fontsize=9)
    bar = figure.colorbar(ScalarMappable(Normalize(0, 1), "inferno"), ax=axes, fraction=0.02, pad=0.01)
    bar.set_label("inner product of the features, or SSIM", fontsize=8)
    bar.ax.tick_params(labelsize=7)
    drawing.write_figure(path, figure, dpi=150)


def _draw_map(axis: Axes, shape: tuple[int, ...], values: np.ndarray, patch_size: int, stride: int) -> None:
    """A map where the centers of its patches are, in the frame of the image."""
    center = patch_size / 2 - 0.5
    first = center - stride / 2
    last = [first + stride * size for size in values.shape]
    axis.set_facecolor("black")
    drawing.show(axis, values, 1, heat=True, extent=(first, last[1], last[0], first))
    axis.set(xlim=(-0.5, shape[1] - 0.5), ylim=(shape[0] - 0.5, -0.5))
    row, col, value = best_match(values, stride=stride)
    axis.plot(col + center, row + center, "x", color="white", markersize=5, markeredgewidth=1.2)
    place: dict[str, Any] = {"ha": "right", "va": "bottom", "transform": axis.transAxes}
    axis.text(0.98, 0.02, f"max {value:.2f}", color="white", fontsize=7, **place)


def _frame(axis: Axes, color: str) -> None:
    axis.set(xticks=[], yticks=[])
    axis.spines[:].set(color=color, linewidth=2.5)


def save_best_matches(
    path: str | Path, images: Sequence[MappedImage], corners: Sequence[Corner], *, patch_size: int, stride: int
) -> None:
    """A PNG, JPG or PDF has a row for each source patch, with the best patch of each other image by each measure.

    Each image has its own gray scale. Fewer than two images raise ValueError.
    """
    if len(images) < 2:
        raise ValueError(f"images must be at least two, the source and another one, got {len(images)}")
    source, *others = images
    columns = [(item, measure) for item in others for measure in source.maps]
    width, height = _CELL * (1 + len(columns)), (_CELL + 0.2) * len(corners) + 0.45
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots(len(corners), 1 + len(columns), squeeze=False)
    for index, ((row, col), cells) in enumerate(zip(corners, axes, strict=True)):
        _show_patch(cells[0], source.image, (row, col, patch_size), PATCH_COLORS[index])
        for axis, (item, measure) in zip(cells[1:], columns, strict=True):
            row, col, value = best_match(item.maps[measure][index], stride=stride)
            _show_patch(axis, item.image, (row, col, patch_size), "0.6")
            axis.set_xlabel(f"{measure} {value:.2f}", fontsize=8.5)
    axes[0, 0].set_title("source patch", fontsize=8.5)
    for axis, item in zip(axes[0, 1 :: len(source.maps)], others, strict=True):
        axis.set_title(f"best in {item.name}", fontsize=8.5, loc="left")
    drawing.write_figure(path, figure, dpi=200)


def _show_patch(axis: Axes, image: np.ndarray, square: drawing.Square, color: str) -> None:
    drawing.show(axis, drawing.cut(image, square), drawing.white_of(image))
    _frame(axis, color)
