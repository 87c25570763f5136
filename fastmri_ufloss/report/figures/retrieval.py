"""Figures 5, S1 and S2 of the UFLoss paper: where a patch finds its like, in a bank of patches and in some images."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import BadZipFile
from zlib import crc32

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from fastmri_ufloss.files import atomic_path, file_stamp
from fastmri_ufloss.losses.ssim import ssim_loss
from fastmri_ufloss.losses.ufloss import check_at_least_one, patch_features
from fastmri_ufloss.mri.intensity import image_scale
from fastmri_ufloss.report.figures import drawing
from fastmri_ufloss.report.figures.images import FigureImages, Place

__all__ = ["FeatureBank", "build_bank", "draw_correlation_maps", "look_up", "save_retrieval", "textured_queries"]

SIDES = ("nearest", "farthest")
PATCH_COLORS = ("limegreen", "deepskyblue", "orange", "magenta")
NUM_PATCHES = 2  # of correlation maps, unless the user says which
_CELL, _COLUMN = 1.15, 2.1  # inches

Corner = tuple[int, int]
"""Row and column of the upper left pixel of a patch."""
Query = tuple[Place, Corner]
MappedImages = Mapping[str, tuple[np.ndarray, Mapping[str, np.ndarray]]]
"""By name the magnitude (rows, cols) and, by measure, the maps for each source patch, (patches, rows, cols)."""


class FeatureBank(NamedTuple):
    """Unit vectors (n, d) float32 of patches, and their places (n, 4) int64: number of the volume, slice, corner."""

    features: Tensor
    places: Tensor


def features_at(feature_net: nn.Module, image: Tensor, corners: Tensor, *, chunk_size: int = 256) -> Tensor:
    """Features (n, d), without gradient, of the patches at corners (n, 2) of an image (rows, cols)."""
    size = int(feature_net.patch_size)  # type: ignore[arg-type]
    rows, cols = image.shape
    if bool(((corners < 0) | (corners > torch.tensor([rows, cols]) - size)).any()):
        wanted = f"patches of {size}x{size} inside the image of {rows}x{cols}"
        raise ValueError(f"corners must be of {wanted}, got {corners.tolist()[:1]}")
    scale, features = image_scale(image[None]), []
    for chunk in corners.split(chunk_size):
        patches = torch.stack([image[row : row + size, col : col + size] for row, col in chunk.tolist()])
        features.append(patch_features(feature_net, patches[:, None], scale.expand(len(chunk)))[:, 0])
    return torch.cat(features)


def random_corners(shape: Sequence[int], patch_size: int, count: int, key: tuple[int, str, int]) -> Tensor:
    """Corners (count, 2) of patches at random places of an image, which depend on its shape and the key alone."""
    seed, name, slice_num = key
    generator = np.random.default_rng([seed, crc32(name.encode()), slice_num])
    return torch.from_numpy(generator.integers(np.array(shape) - patch_size + 1, size=(count, 2)))


def textured_corners(image: Tensor, patch_size: int, count: int) -> list[Corner]:
    """Corners of the most textured patches of an image (rows, cols), see `drawing.textured_squares`."""
    magnitude = image.abs().cpu().double().numpy()
    squares = drawing.textured_squares(magnitude, patch_size, count=count, organ=True)
    return [(row, col) for row, col, _ in squares]


def build_bank(images: FigureImages, *, size: int, seed: int, cache_dir: str | Path) -> FeatureBank:
    """Patches at random places, as many of each slice, cached by volume; a size below 1 raises ValueError."""
    if size < 1:
        raise ValueError(f"size of the bank must be at least 1, got {size}")
    num_slices = sum(volume.shape[0] for volume in images.volumes)
    counts = np.diff([i * size // num_slices for i in range(num_slices + 1)]).tolist()
    stamp = hashlib.sha256()
    for name, tensor in images.net.state_dict().items():
        stamp.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
    parts, first = [], 0
    for index, volume in enumerate(tqdm(images.volumes, desc=f"Bank of {size} patches", unit="volume")):
        of_slices = {i: count for i, count in enumerate(counts[first : first + volume.shape[0]]) if count}
        first += volume.shape[0]
        if not of_slices:
            continue
        key = (volume.path.name, *file_stamp(volume.path), stamp.hexdigest(), seed, list(of_slices.items()))
        file = Path(cache_dir) / f"{volume.path.stem}-{hashlib.sha256(repr(key).encode()).hexdigest()[:16]}.npz"
        part = _read(file)
        if part is None:
            part = _compute(images, index, of_slices, seed)
            with atomic_path(file) as temporary, temporary.open("wb") as stream:
                np.savez(stream, features=part.features.numpy(), places=part.places.numpy())
        # the file does not know the number of its volume in the folder
        parts.append(FeatureBank(part.features, F.pad(part.places, (1, 0), value=index)))
    return FeatureBank(*(torch.cat(values) for values in zip(*parts, strict=True)))


def _compute(images: FigureImages, index: int, of_slices: Mapping[int, int], seed: int) -> FeatureBank:
    """The patches of a volume, so many of each slice; their places without the number of the volume."""
    features, places, name = [], [], images.volumes[index].path.name
    for (_, slice_num), image in images.with_signal((index, slice_num) for slice_num in of_slices):
        key = (seed, name, slice_num)
        corners = random_corners(image.shape, images.net.patch_size, of_slices[slice_num], key)
        features.append(features_at(images.net, image, corners).cpu())
        places.append(F.pad(corners, (1, 0), value=slice_num))
    return FeatureBank(torch.cat(features), torch.cat(places))


def _read(path: Path) -> FeatureBank | None:
    """What was written of a volume; None if there is no such file, or it is damaged."""
    try:
        with np.load(path, allow_pickle=False) as file:
            return FeatureBank(torch.from_numpy(file["features"]), torch.from_numpy(file["places"]))
    except (FileNotFoundError, BadZipFile, EOFError, KeyError, ValueError):
        return None


def textured_queries(images: FigureImages, count: int) -> list[Query]:
    """A textured patch of each of some evenly spaced slices."""
    queries = []
    for index, (place, image) in enumerate(images.with_signal(images.evenly(count))):
        # not the same part of each image: of the first the best patch, of the next the second best ...
        queries.append((place, textured_corners(image, images.net.patch_size, 1 + index % 4)[-1]))
    return queries


def search(query: Tensor, bank: Tensor, allowed: Tensor, *, count: int, largest: bool) -> tuple[Tensor, Tensor]:
    """The largest or smallest inner products of a query (d,) with allowed rows of a bank (n, d), and the rows."""
    sign = 1.0 if largest else -1.0
    products = (sign * (query[None] @ bank.T)[0]).masked_fill(~allowed, -torch.inf)
    values, rows = products.topk(count)
    return sign * values, rows


def look_up(
    images: FigureImages, queries: Sequence[Query], bank: FeatureBank, bank_images: FigureImages, *, count: int
) -> list[dict[str, Any]]:
    """The ``count`` nearest and farthest patches of some patches, without those of the same subject.

    A row for each query has ``volume``, ``slice`` and ``corner``, and those of its ``nearest`` and ``farthest`` with
    their ``inner_product``. Fewer patches of other subjects in the bank, that of ``bank_images``, raise ValueError.
    """
    check_at_least_one(count=count)
    results = []
    for (number, slice_num), corner in queries:
        image = images.read((number, slice_num))
        # searched on the CPU: products of a GPU may be rounded to TF32
        query = features_at(images.net, image, torch.tensor([corner])).cpu()[0]
        subject = images.volumes[number].subject
        is_other = torch.tensor([volume.subject != subject for volume in bank_images.volumes])
        allowed = is_other[bank.places[:, 0]]
        if count > int(allowed.sum()):
            wanted = f"{count} patches of other subjects than {subject}, got {int(allowed.sum())}"
            raise ValueError(f"the bank must have {wanted}: make it larger, or of a folder with other subjects")
        result = _describe(images, (number, slice_num, *corner))
        for side in SIDES:
            values, rows = search(query, bank.features, allowed, count=count, largest=side == "nearest")
            hits = zip(values.tolist(), bank.places[rows].tolist(), strict=True)
            result[side] = [{"inner_product": value, **_describe(bank_images, place)} for value, place in hits]
        results.append(result)
    return results


def _describe(images: FigureImages, place: Sequence[int]) -> dict[str, Any]:
    number, slice_num, *corner = place
    return {"volume": images.volumes[number].path.name, "slice": slice_num, "corner": corner}


def save_retrieval(
    path: str | Path, queries: Sequence[Mapping[str, Any]], images: FigureImages, bank_images: FigureImages
) -> None:
    """A PNG, JPG or PDF has a row for each query of `look_up`; borders have the colors of the inner products."""
    rows = [[query, *query["nearest"], *query["farthest"]] for query in queries]
    patches = [[_cut(images, query), *(_cut(bank_images, hit) for hit in hits)] for query, *hits in rows]
    white = float(np.percentile(patches, 99)) or 1.0
    count = len(queries[0]["nearest"])
    # narrow empty columns stand between the query, the nearest and the farthest
    widths = [1.0, 0.12, *[1.0] * count, 0.12, *[1.0] * count]
    figure = Figure(figsize=(_CELL * sum(widths) + 0.9, (_CELL + 0.25) * len(queries) + 0.6), layout="constrained")
    axes = figure.subplots(len(queries), len(widths), squeeze=False, width_ratios=widths)
    lowest = min(hit["inner_product"] for _, *hits in rows for hit in hits)
    colors = ScalarMappable(Normalize(min(-0.2, lowest), 1.0), "inferno")
    for axis in axes.flat:
        drawing.hide_frame(axis)
    cells = np.delete(axes, (1, 2 + count), axis=1)
    for line, row, of_row in zip(cells, rows, patches, strict=True):
        for axis, hit, patch in zip(line, row, of_row, strict=True):
            drawing.show(axis, patch, white)
            if "inner_product" in hit:
                _frame(axis, colors.to_rgba(np.asarray(hit["inner_product"])), width=3.5)
                axis.set_xlabel(f"{hit['inner_product']:.2f}", fontsize=8)
        line[0].set_xlabel(f"{Path(row[0]['volume']).stem}\nslice {row[0]['slice']}", fontsize=6.5)
    for title, axis in (("query", cells[0, 0]), ("nearest", cells[0, 1]), ("farthest", cells[0, 1 + count])):
        axis.set_title(title, fontsize=9, loc="left")
    _add_color_bar(figure, colors, axes, "inner product of the features")
    drawing.write_figure(path, figure, dpi=200)


def _cut(images: FigureImages, row: Mapping[str, Any]) -> np.ndarray:
    """The magnitude of a patch, in one unit for all images."""
    image = images.read(images.place(row["volume"], row["slice"]))
    magnitude = (image.abs() / image_scale(image[None])).cpu().numpy()
    return drawing.cut(magnitude, (*row["corner"], images.net.patch_size))


def _frame(axis: Axes, color: Any, *, width: float = 2.5) -> None:
    axis.set(xticks=[], yticks=[])
    axis.spines[:].set(visible=True, color=color, linewidth=width)


def _add_color_bar(figure: Figure, colors: ScalarMappable, axes: np.ndarray, label: str) -> None:
    bar = figure.colorbar(colors, ax=axes, fraction=0.015, pad=0.01)
    bar.set_label(label, fontsize=8)
    bar.ax.tick_params(labelsize=7)


def feature_maps(
    feature_net: nn.Module, source: Tensor, corners: Tensor, image: Tensor, *, stride: int, chunk_size: int = 256
) -> Tensor:
    """Inner products of the features of n patches of a source with those on a grid of an image, (n, rows, cols)."""
    wanted = features_at(feature_net, source, corners, chunk_size=chunk_size)
    scale = image_scale(image[None])
    features = patch_features(feature_net, image[None, None], scale, stride=stride, chunk_size=chunk_size)[0]
    rows = (image.shape[0] - int(feature_net.patch_size)) // stride + 1  # type: ignore[arg-type]
    return (wanted @ features.T).reshape(len(corners), rows, -1)


def ssim_maps(source: Tensor, corners: Tensor, image: Tensor, *, patch_size: int, stride: int) -> Tensor:
    """fastMRI's SSIM of magnitudes, instead of the inner products of `feature_maps`.

    Each image is divided by its `image_scale` first, since SSIM minds the brightness; the data range is the source's
    largest value then.
    """
    source, image = (part.abs() / image_scale(part[None]) for part in (source, image))
    data_range = source.max().clamp(min=torch.finfo(source.dtype).tiny)
    maps = []
    for row, col in corners.tolist():
        wanted = source[row : row + patch_size, col : col + patch_size]
        # row by row of the grid: all patches at once would need much memory
        lines = (line[:, None] for line in image.unfold(0, patch_size, stride).unfold(1, patch_size, stride))
        losses = [ssim_loss(line, wanted.expand_as(line), data_range, reduction="none") for line in lines]
        maps.append(1 - torch.stack(losses))
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
    the files, and what the folder does not have, in words, are returned. Corners are of 1 to 4 patches inside the
    source, ValueError otherwise; the most textured ones, put on the grid, if not given.

    Args:
        stride: of the grid, which starts at the upper left corner.
        chunk_size: patches that go through the network at once.
    """
    net, image = images.net, images.read(source)
    if corners is None:
        textured = textured_corners(image, net.patch_size, NUM_PATCHES)
        corners = [(row // stride * stride, col // stride * stride) for row, col in textured]
    where = [(row, col) for row, col in corners]
    if not 1 <= len(where) <= len(PATCH_COLORS):
        raise ValueError(f"corners must be of 1 to {len(PATCH_COLORS)} patches, got {len(where)}")
    targets, missing = {f"same image\n{images.label(source)}": image}, []
    contrast = images.volumes[source[0]].contrast
    for is_same, name in ((True, "another subject"), (False, "another subject and contrast")):
        place = _other_subject(images, source, is_same=is_same)
        if place is None:
            missing.append(f"other subject with {'contrast' if is_same else 'another contrast than'} {contrast!r}")
        else:
            targets[f"{name}\n{images.label(place)}"] = images.read(place)
    if others is not None:
        middle = others.place(None, None, otherwise=len(others.volumes) // 2)
        targets[f"other data\n{others.label(middle)}"] = others.read(middle)
    mapped = {}
    for name, target in targets.items():
        products = feature_maps(net, image, torch.tensor(where), target, stride=stride, chunk_size=chunk_size)
        similarities = ssim_maps(image, torch.tensor(where), target, patch_size=net.patch_size, stride=stride)
        maps = {"UFLoss": products.cpu().numpy(), "SSIM": similarities.cpu().numpy()}
        mapped[name] = (target.abs().cpu().numpy(), maps)
    save_correlation_maps(path, mapped, where, patch_size=net.patch_size, stride=stride)
    paths = [path]
    if len(mapped) > 1:
        paths.append(path.with_name(f"{path.stem}_best{path.suffix}"))
        save_best_matches(paths[1], mapped, where, patch_size=net.patch_size, stride=stride)
    rows = []
    for index, corner in enumerate(where):
        described = [_describe_maps(name, maps, index, stride) for name, (_, maps) in mapped.items()]
        rows.append({"corner": list(corner), "images": described})
    return {"source": images.label(source), "stride": stride, "patches": rows}, paths, missing


def _other_subject(images: FigureImages, source: Place, *, is_same: bool) -> Place | None:
    """The slice at the same height of the next volume of another subject, of the same contrast or of another."""
    number, slice_num = source
    volume = images.volumes[number]
    others = list(enumerate(images.volumes))
    for index, other in others[number + 1 :] + others[:number]:
        if other.subject != volume.subject and (other.contrast == volume.contrast) == is_same:
            return index, int((slice_num + 0.5) / volume.shape[0] * other.shape[0])
    return None


def _describe_maps(name: str, maps: Mapping[str, np.ndarray], index: int, stride: int) -> dict[str, Any]:
    """The best match of a patch in an image, by measure, and how far it stands out of the map."""
    row: dict[str, Any] = {"image": name.replace("\n", ": ")}
    for measure, values in maps.items():
        *corner, best = best_match(values[index], stride=stride)
        spread = {"mean": float(values[index].mean()), "std": float(values[index].std())}
        row[measure] = {"best_corner": corner, "best": best, **spread}
    return row


def save_correlation_maps(
    path: str | Path, images: MappedImages, corners: Sequence[Corner], *, patch_size: int, stride: int
) -> None:
    """Each image has a row: the image, and for each measure and source patch the map, of positive values only."""
    _, measures = next(iter(images.values()))
    columns = [(measure, index) for measure in measures for index in range(len(corners))]
    heights = [_COLUMN * image.shape[0] / image.shape[1] for image, _ in images.values()]
    figure = Figure(figsize=(_COLUMN * (1 + len(columns)) + 0.9, sum(heights) + 0.35), layout="constrained")
    axes = figure.subplots(len(images), 1 + len(columns), squeeze=False, height_ratios=heights)
    for (name, (image, maps)), (whole, *cells) in zip(images.items(), axes, strict=True):
        drawing.show(whole, image, drawing.white_of(image))
        whole.set(xticks=[], yticks=[])
        whole.set_ylabel(name, fontsize=8.5)
        for axis, (measure, index) in zip(cells, columns, strict=True):
            _draw_map(axis, image.shape, maps[measure][index], patch_size, stride)
            _frame(axis, PATCH_COLORS[index])
    for (row, col), color in zip(corners, PATCH_COLORS, strict=False):
        drawing.outline(axes[0, 0], (row, col, patch_size), color=color, linewidth=1.6)
    for axis, title in zip(axes[0], ("image", *(measure for measure, _ in columns)), strict=True):
        axis.set_title(title, fontsize=9)
    colors = ScalarMappable(Normalize(0, 1), "inferno")
    _add_color_bar(figure, colors, axes, "inner product of the features, or SSIM")
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


def save_best_matches(
    path: str | Path, images: MappedImages, corners: Sequence[Corner], *, patch_size: int, stride: int
) -> None:
    """Each source patch, of the first image, has a row with the best patch of each other image by each measure."""
    (source, measures), *others = images.values()
    columns = [(image, measure, maps[measure]) for image, maps in others for measure in measures]
    width, height = 1.5 * (1 + len(columns)), 1.7 * len(corners) + 0.45
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots(len(corners), 1 + len(columns), squeeze=False)
    for index, ((row, col), cells) in enumerate(zip(corners, axes, strict=True)):
        _show_patch(cells[0], source, (row, col, patch_size), PATCH_COLORS[index])
        for axis, (image, measure, values) in zip(cells[1:], columns, strict=True):
            row, col, value = best_match(values[index], stride=stride)
            _show_patch(axis, image, (row, col, patch_size), "0.6")
            axis.set_xlabel(f"{measure} {value:.2f}", fontsize=8.5)
    axes[0, 0].set_title("source patch", fontsize=8.5)
    for axis, name in zip(axes[0, 1 :: len(measures)], list(images)[1:], strict=True):
        axis.set_title(f"best in {name}", fontsize=8.5, loc="left")
    drawing.write_figure(path, figure, dpi=200)


def _show_patch(axis: Axes, image: np.ndarray, square: drawing.Square, color: str) -> None:
    drawing.show(axis, drawing.cut(image, square), drawing.white_of(image))
    _frame(axis, color)
