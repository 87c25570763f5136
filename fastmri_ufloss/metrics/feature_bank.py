"""A bank of patches by their features, and the exact search in it."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple
from zipfile import BadZipFile
from zlib import crc32

import numpy as np
import torch
from torch import Tensor, nn

from fastmri_ufloss.files import atomic_path
from fastmri_ufloss.mri.intensity import image_scale, to_patch_channels

__all__ = ["FeatureBank", "features_at", "random_corners", "read_features", "search", "share_out", "write_features"]


class FeatureBank(NamedTuple):
    """Patches of some volumes, one a row.

    Args:
        features: (n, d) float32, unit vectors.
        places: (n, 4) int64: number of the volume, slice, and row and column of the upper left corner.
    """

    features: Tensor
    places: Tensor


def features_at(feature_net: nn.Module, image: Tensor, corners: Tensor, *, chunk_size: int = 256) -> Tensor:
    """Features of some patches of an image, which is divided by its `image_scale` first; without gradient.

    Args:
        feature_net: see `fastmri_ufloss.losses.UFLoss`, in eval mode.
        image: (rows, cols), complex for a network of 2 channels, real magnitude for 1.
        corners: (n, 2), row and column of the upper left pixel of each patch.
        chunk_size: patches that go through the network at once.

    Returns:
        (n, d).

    Raises:
        ValueError: if the network is in training mode, the image is of another kind, or a patch is not inside it.
    """
    if feature_net.training:
        raise ValueError("feature_net must be in eval mode, got training mode: call feature_net.eval()")
    if image.ndim != 2:
        raise ValueError(f"image must have shape (rows, cols), got {tuple(image.shape)}")
    size = int(feature_net.patch_size)  # type: ignore[arg-type]
    last = torch.tensor(image.shape) - size
    if corners.ndim != 2 or corners.shape[1] != 2 or bool(((corners < 0) | (corners > last)).any()):
        raise ValueError(
            f"corners must be (n, 2) with patches of {size}x{size} inside the image of "
            f"{image.shape[0]}x{image.shape[1]}, got {tuple(corners.shape)} from {corners.flatten()[:2].tolist()}"
        )
    channels = to_patch_channels(image[None], int(feature_net.in_chans))[0] / image_scale(image[None])  # type: ignore[arg-type]
    found = []
    with torch.no_grad():
        for chunk in corners.split(chunk_size):
            patches = [channels[:, row : row + size, col : col + size] for row, col in chunk.tolist()]
            found.append(feature_net(torch.stack(patches).float()))
    return torch.cat(found)


def share_out(count: int, places: int) -> list[int]:
    """So many patches for each of some slices, as equally as they can be, in sum ``count``."""
    return [(i + 1) * count // places - i * count // places for i in range(places)]


def random_corners(shape: tuple[int, int], patch_size: int, count: int, key: tuple[int, str, int]) -> Tensor:
    """Corners (count, 2) of patches at random places, uniform, that depend on shape and key only.

    Args:
        shape: (rows, cols) of the image.
        patch_size: rows and columns of a patch.
        count: number of patches.
        key: seed, name of the volume, number of the slice.

    Raises:
        ValueError: if the image is smaller than a patch.
    """
    if min(shape) < patch_size:
        raise ValueError(
            f"images must be at least as large as a patch of {patch_size}x{patch_size}, got {shape[0]}x{shape[1]} "
            f"in {key[1]}"
        )
    seed, name, slice_num = key
    generator = np.random.default_rng([seed, crc32(name.encode()), slice_num])
    room = np.array(shape) - patch_size + 1
    return torch.from_numpy(generator.integers(room, size=(count, 2)))


def write_features(
    path: str | Path,
    feature_net: nn.Module,
    images: Iterable[tuple[int, Tensor]],
    counts: Mapping[int, int],
    *,
    volume_name: str,
    seed: int,
    chunk_size: int = 256,
) -> None:
    """Write the features of patches at random places of a volume, and the places, as one npz file, in one step.

    Args:
        path: the file.
        feature_net: see `features_at`.
        images: number and image (rows, cols) of some slices, read one after another.
        counts: patches of each slice by its number.
        volume_name: the places depend on it, on seed and on the number of the slice.
        seed: see above.
        chunk_size: see `features_at`.
    """
    size = int(feature_net.patch_size)  # type: ignore[arg-type]
    features, places = [], []
    for slice_num, image in images:
        shape = (image.shape[0], image.shape[1])
        corners = random_corners(shape, size, counts[slice_num], (seed, volume_name, slice_num))
        features.append(features_at(feature_net, image, corners, chunk_size=chunk_size).cpu())
        places.append(torch.cat([torch.full((len(corners), 1), slice_num), corners], dim=1))
    with atomic_path(path) as temporary, temporary.open("wb") as stream:
        np.savez(stream, features=torch.cat(features).numpy(), places=torch.cat(places).numpy())


def read_features(path: str | Path, volume: int) -> FeatureBank | None:
    """What `write_features` wrote, with the number that the volume has in the bank; None if there is no such file."""
    try:
        with np.load(path, allow_pickle=False) as file:
            features, places = torch.from_numpy(file["features"]), torch.from_numpy(file["places"])
    except (FileNotFoundError, BadZipFile, EOFError, KeyError, ValueError):
        return None
    return FeatureBank(features, torch.cat([torch.full((len(places), 1), volume), places], dim=1))


def search(
    queries: Tensor,
    bank: Tensor,
    *,
    count: int,
    largest: bool = True,
    allowed: Tensor | None = None,
    chunk_size: int = 65536,
) -> tuple[Tensor, Tensor]:
    """The rows of a bank with the largest inner products, or the smallest; exact, by ``torch.topk`` of chunks.

    Args:
        queries: (q, d).
        bank: (n, d).
        count: rows for each query.
        largest: the largest inner products, or else the smallest.
        allowed: (q, n) bool, the rows that a query may find; None for all.
        chunk_size: rows of the bank that are compared at once: it bounds the memory to q x chunk_size products.

    Returns:
        Inner products (q, count), the best first, and row numbers (q, count).

    Raises:
        ValueError: if shapes do not fit, or fewer than count rows are allowed for a query.
    """
    if queries.ndim != 2 or bank.ndim != 2 or queries.shape[1] != bank.shape[1]:
        raise ValueError(
            f"queries and bank must be (q, d) and (n, d), got {tuple(queries.shape)} and {tuple(bank.shape)}"
        )
    if allowed is not None and allowed.shape != (len(queries), len(bank)):
        raise ValueError(f"allowed must have shape {(len(queries), len(bank))}, got {tuple(allowed.shape)}")
    fewest = len(bank) if allowed is None else int(allowed.sum(dim=1).min())
    if not 1 <= count <= fewest or chunk_size < 1:
        raise ValueError(
            f"count must be from 1 to the {fewest} rows that each query may find, got {count}, and chunk_size at "
            f"least 1, got {chunk_size}"
        )
    sign = 1.0 if largest else -1.0
    values = queries.new_empty((len(queries), 0))
    rows = torch.empty((len(queries), 0), dtype=torch.int64, device=queries.device)
    for start in range(0, len(bank), chunk_size):
        products = sign * (queries @ bank[start : start + chunk_size].to(queries).T)
        if allowed is not None:
            products = products.masked_fill(~allowed[:, start : start + chunk_size].to(products.device), -torch.inf)
        numbers = torch.arange(start, start + products.shape[1], device=queries.device).expand_as(products)
        values, rows = torch.cat([values, products], dim=1), torch.cat([rows, numbers], dim=1)
        values, order = values.topk(min(count, values.shape[1]), dim=1)
        rows = rows.gather(1, order)
    return sign * values, rows
