"""Figure 5A of the UFLoss paper: patches, and those of a bank that are nearest to and farthest from them."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import BadZipFile
from zlib import crc32

import numpy as np
import torch
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from torch import Tensor, nn
from tqdm import tqdm

from fastmri_ufloss.files import atomic_path, file_stamp
from fastmri_ufloss.losses.ufloss import patch_features
from fastmri_ufloss.mri.intensity import image_scale
from fastmri_ufloss.report.figures import drawing
from fastmri_ufloss.report.figures.images import FigureImages, Place

__all__ = ["FeatureBank", "build_bank", "cut_patches", "features_at", "look_up", "save_retrieval", "textured_queries"]

SIDES = ("nearest", "farthest")
_CELL = 1.15  # inches

Query = tuple[Place, tuple[int, int]]
"""The place of an image, and the upper left corner of a patch."""


class FeatureBank(NamedTuple):
    """Patches of some volumes: features (n, d) float32, unit vectors, and places (n, 4) int64, number of the volume,
    slice, and row and column of the upper left corner.
    """

    features: Tensor
    places: Tensor


def features_at(feature_net: nn.Module, image: Tensor, corners: Tensor, *, chunk_size: int = 256) -> Tensor:
    """Features (n, d) of the patches at corners (n, 2) of an image (rows, cols), divided by its `image_scale`.

    The network is in eval mode, and without gradient. An image of another kind than it takes, or a patch that is not
    inside the image, raises ValueError.
    """
    if image.ndim != 2:
        raise ValueError(f"image must have shape (rows, cols), got {tuple(image.shape)}")
    size = int(feature_net.patch_size)  # type: ignore[arg-type]
    last = torch.tensor(image.shape) - size
    if corners.ndim != 2 or corners.shape[1] != 2 or bool(((corners < 0) | (corners > last)).any()):
        raise ValueError(
            f"corners must be (n, 2) with patches of {size}x{size} inside the image of "
            f"{image.shape[0]}x{image.shape[1]}, got {tuple(corners.shape)} from {corners.flatten()[:2].tolist()}"
        )
    scale, features = image_scale(image[None]), []
    for chunk in corners.split(chunk_size):
        patches = torch.stack([image[row : row + size, col : col + size] for row, col in chunk.tolist()])
        features.append(patch_features(feature_net, patches[:, None], scale.expand(len(chunk)))[:, 0])
    return torch.cat(features)


def random_corners(shape: Sequence[int], patch_size: int, count: int, key: tuple[int, str, int]) -> Tensor:
    """Corners (count, 2) of patches at random places of an image, which depend on its shape and the key alone."""
    seed, name, slice_num = key
    generator = np.random.default_rng([seed, crc32(name.encode()), slice_num])
    room = np.array(shape) - patch_size + 1
    return torch.from_numpy(generator.integers(room, size=(count, 2)))


def build_bank(images: FigureImages, *, size: int, seed: int, cache_dir: str | Path) -> FeatureBank:
    """Patches at random places, ``size`` in all and as many of each slice of a folder.

    The cache has a file of each volume that an earlier call has finished. A size below 1 raises ValueError.
    """
    if size < 1:
        raise ValueError(f"size of the bank must be at least 1, got {size}")
    every = images.evenly(sum(volume.shape[0] for volume in images.volumes))
    ends = [i * size // len(every) for i in range(len(every) + 1)]
    counts = dict(zip(every, np.diff(ends).tolist(), strict=True))
    stamp = hashlib.sha256()
    for name, tensor in images.net.state_dict().items():
        stamp.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
    parts = []
    for index, volume in enumerate(tqdm(images.volumes, desc=f"Bank of {size} patches", unit="volume")):
        of_slices = {place[1]: count for place, count in counts.items() if place[0] == index and count}
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
        parts.append(FeatureBank(part.features, torch.nn.functional.pad(part.places, (1, 0), value=index)))
    return FeatureBank(*(torch.cat(values) for values in zip(*parts, strict=True)))


def _compute(images: FigureImages, index: int, of_slices: Mapping[int, int], seed: int) -> FeatureBank:
    """The patches of a volume, so many of each slice; their places without the number of the volume."""
    features, places, name = [], [], images.volumes[index].path.name
    for (_, slice_num), image in images.with_signal((index, slice_num) for slice_num in of_slices):
        key = (seed, name, slice_num)
        corners = random_corners(image.shape, images.net.patch_size, of_slices[slice_num], key)
        features.append(features_at(images.net, image, corners).cpu())
        places.append(torch.nn.functional.pad(corners, (1, 0), value=slice_num))
    return FeatureBank(torch.cat(features), torch.cat(places))


def _read(path: Path) -> FeatureBank | None:
    """What was written of a volume; None if there is no such file, or it is damaged."""
    try:
        with np.load(path, allow_pickle=False) as file:
            return FeatureBank(torch.from_numpy(file["features"]), torch.from_numpy(file["places"]))
    except (FileNotFoundError, BadZipFile, EOFError, KeyError, ValueError):
        return None


def search(
    query: Tensor, bank: Tensor, *, count: int, largest: bool = True, allowed: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The rows of a bank (n, d) with the largest inner products with a query (d,), or the smallest; exact.

    Only rows that are ``allowed``, (n,) bool, are found, or else all. Inner products (count,), the best first, and
    row numbers are returned. Shapes that do not fit, or too few rows, raise ValueError.
    """
    allowed = torch.ones(len(bank), dtype=torch.bool) if allowed is None else allowed
    if query.shape != bank.shape[1:] or bank.ndim != 2 or allowed.shape != bank.shape[:1]:
        shapes = ", ".join(str(tuple(tensor.shape)) for tensor in (query, bank, allowed))
        raise ValueError(f"query, bank and allowed must be (d,), (n, d) and (n,), got {shapes}")
    if not 1 <= count <= int(allowed.sum()):
        raise ValueError(f"count must be from 1 to the {int(allowed.sum())} rows that may be found, got {count}")
    sign = 1.0 if largest else -1.0
    products = (sign * (query[None] @ bank.T)[0]).masked_fill(~allowed, -torch.inf)
    values, rows = products.topk(count)
    return sign * values, rows


def textured_queries(images: FigureImages, count: int) -> list[Query]:
    """A textured patch of each of some evenly spaced slices."""
    queries = []
    for index, (place, image) in enumerate(images.with_signal(images.evenly(count))):
        # not the same part of each image: of the first the best patch, of the next the second best ...
        queries.append((place, textured_corners(image, images.net.patch_size, 1 + index % 4)[-1]))
    return queries


def textured_corners(image: Tensor, patch_size: int, count: int) -> list[tuple[int, int]]:
    """Upper left corners of the most textured patches of an image (rows, cols), see `drawing.textured_squares`."""
    magnitude = image.abs().cpu().double().numpy()
    squares = drawing.textured_squares(magnitude, patch_size, count=count, organ=True)
    return [(row, col) for row, col, _ in squares]


def look_up(
    images: FigureImages, queries: Sequence[Query], bank: FeatureBank, bank_images: FigureImages, *, count: int
) -> list[dict[str, Any]]:
    """The ``count`` nearest and farthest patches of some patches, without those of the same subject.

    A row for each query has ``volume``, ``slice`` and ``corner``, and those of its ``nearest`` and ``farthest`` with
    their ``inner_product``. Too few patches of other subjects in the bank, that of ``bank_images``, raise ValueError.
    """
    results = []
    for (number, slice_num), corner in queries:
        image = images.read((number, slice_num))
        # searched on the CPU: products of a GPU may be rounded to TF32
        query = features_at(images.net, image, torch.tensor([corner])).cpu()[0]
        subject = images.volumes[number].subject
        is_other = torch.tensor([volume.subject != subject for volume in bank_images.volumes])
        allowed = is_other[bank.places[:, 0]]
        if int(allowed.sum()) < count:
            raise ValueError(
                f"the bank must have {count} patches of other subjects than {subject}, got {int(allowed.sum())}: "
                "make it larger, or of a folder with other subjects"
            )
        result = _describe(images, (number, slice_num, *corner))
        for side in SIDES:
            values, rows = search(query, bank.features, count=count, largest=side == "nearest", allowed=allowed)
            hits = zip(values.tolist(), bank.places[rows].tolist(), strict=True)
            result[side] = [{"inner_product": value, **_describe(bank_images, place)} for value, place in hits]
        results.append(result)
    return results


def _describe(images: FigureImages, place: Sequence[int]) -> dict[str, Any]:
    number, slice_num, *corner = place
    return {"volume": images.volumes[number].path.name, "slice": slice_num, "corner": corner}


def cut_patches(
    results: Sequence[Mapping[str, Any]], images: FigureImages, bank_images: FigureImages
) -> list[dict[str, list[np.ndarray]]]:
    """Patches of the results of `look_up`: magnitudes, of images at their scale, by query, nearest and farthest."""

    def cut(folder: FigureImages, row: Mapping[str, Any]) -> np.ndarray:
        image = folder.read(folder.place(row["volume"], row["slice"]))
        magnitude = (image.abs() / image_scale(image[None])).cpu().numpy()
        return drawing.cut(magnitude, (*row["corner"], folder.net.patch_size))

    return [
        {"query": [cut(images, row)], **{side: [cut(bank_images, hit) for hit in row[side]] for side in SIDES}}
        for row in results
    ]


def save_retrieval(
    path: str | Path, queries: Sequence[Mapping[str, Any]], patches: Sequence[Mapping[str, Sequence[np.ndarray]]]
) -> None:
    """A PNG, JPG or PDF has a row for each query: the patch, its nearest patches, and its farthest ones.

    The border of a patch has the color of its inner product with the query; all patches have one gray scale. No
    query, or different numbers of patches, raise ValueError.
    """
    counts = {(len(query["nearest"]), len(query["farthest"])) for query in queries}
    if len(counts) != 1:
        raise ValueError(f"queries must be at least one, with as many patches each, got {sorted(counts)}")
    ((near, far),) = counts
    pixels = [patch.ravel() for row in patches for side in row.values() for patch in side]
    white = float(np.percentile(np.concatenate(pixels), 99)) or 1.0
    # narrow empty columns stand between the query, the nearest and the farthest
    widths = [1.0, 0.12, *[1.0] * near, 0.12, *[1.0] * far]
    figure = Figure(figsize=(_CELL * sum(widths) + 0.9, (_CELL + 0.25) * len(queries) + 0.6), layout="constrained")
    axes = figure.subplots(len(queries), len(widths), squeeze=False, width_ratios=widths)
    values = [hit["inner_product"] for query in queries for hit in (*query["nearest"], *query["farthest"])]
    colors = ScalarMappable(Normalize(min(-0.2, *values), 1.0), "inferno")
    for axis in axes.flat:
        drawing.hide_frame(axis)
    for row, query, shown in zip(axes, queries, patches, strict=True):
        drawing.show(row[0], shown["query"][0], white)
        row[0].set_xlabel(f"{Path(query['volume']).stem}\nslice {query['slice']}", fontsize=6.5)
        for name, cells in (("nearest", row[2 : 2 + near]), ("farthest", row[3 + near :])):
            for axis, hit, patch in zip(cells, query[name], shown[name], strict=True):
                drawing.show(axis, patch, white)
                color = colors.to_rgba(np.asarray(hit["inner_product"]))
                axis.spines[:].set(visible=True, color=color, linewidth=3.5)
                axis.set_xlabel(f"{hit['inner_product']:.2f}", fontsize=8)
    axes[0, 0].set_title("query", fontsize=9)
    axes[0, 2].set_title("nearest", fontsize=9, loc="left")
    axes[0, 3 + near].set_title("farthest", fontsize=9, loc="left")
    bar = figure.colorbar(colors, ax=axes, fraction=0.015, pad=0.01)
    bar.set_label("inner product of the features", fontsize=8)
    bar.ax.tick_params(labelsize=7)
    drawing.write_figure(path, figure, dpi=200)
