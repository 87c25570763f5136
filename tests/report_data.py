"""Small folders of reconstructions for the tests of the report."""

from pathlib import Path
from typing import Any

import fastmri
import h5py
import numpy as np
import torch
from helpers import smooth_maps

from fastmri_ufloss.simulation.volume_file import fft2c, write_volume

NAMES = ("a.h5", "b.h5", "c.h5")
SIZE = 40


def write(path: Path, images: np.ndarray, *, name: str = "reconstruction", **more: Any) -> None:
    """A file of images; ``segmentation`` and ``mask`` are data sets, the rest attributes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file[name] = np.asarray(images)
        for dataset in ("segmentation", "mask"):
            if dataset in more:
                file[dataset] = more.pop(dataset)
        file.attrs.update(more)


def read(path: Path, name: str = "reconstruction") -> np.ndarray:
    with h5py.File(path) as file:
        return np.asarray(file[name][()])


def make_volume(seed: int, *, slices: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Slices of a bright rectangle on noise, and its mask; the first slice of the first volume has none."""
    masks = np.zeros((slices, SIZE, SIZE), dtype=np.uint8)
    masks[:, 8 : 16 + 2 * (seed % 4), 10:20] = 1
    images = (masks + 0.3 * np.random.default_rng(seed).random(masks.shape)) * 1e-4
    if seed == 0:
        images[0] *= 0.3
        masks[0] = 0
    return images.astype(np.float32), masks


def make_folders(root: Path, *, names: tuple[str, ...] = NAMES, slices: int = 2) -> None:
    """``reference``, the methods ``noisy`` and ``dim``, and ``val``, fastMRI volumes with segmentations."""
    for seed, name in enumerate(names):
        images, masks = make_volume(seed, slices=slices)
        noise = np.random.default_rng(seed + 10).normal(scale=4e-5 * (1 + 0.1 * seed), size=images.shape)
        write(root / "reference" / name, images)
        write(root / "noisy" / name, np.abs(images + noise).astype(np.float32))
        write(root / "dim" / name, images * np.float32(0.7 + 0.1 * (seed % 3)))
        write(root / "val" / name, images, name="reconstruction_rss", segmentation=masks, patient_id="")


def make_acquired(
    root: Path, name: str, *, mask: np.ndarray | None = None, seed: int = 0, slices: int = 2
) -> np.ndarray:
    """A volume of four coils in ``root/kspace``, undersampled with a mask; returns its complex images."""
    magnitude, _ = make_volume(seed + 1, slices=slices)
    phase = np.linspace(0, 2, SIZE)[:, None] + np.linspace(0, 1, SIZE) ** 2
    images = magnitude * np.exp(1j * phase)
    maps = torch.view_as_complex(smooth_maps(1, 4, SIZE, SIZE))[0].numpy()
    kspace = fft2c(images[:, None] * maps).astype(np.complex64)
    write_volume(root / "kspace" / name, kspace, mask=mask)
    return images


def zero_filled(path: Path, mask: np.ndarray) -> np.ndarray:
    """Root-sum-of-squares images of the samples of a mask."""
    kspace = torch.view_as_real(torch.from_numpy(read(path, "kspace") * mask))
    return fastmri.rss(fastmri.complex_abs(fastmri.ifft2c(kspace)), dim=1).numpy()


def columns(*, every: int = 3, center: int = 12) -> np.ndarray:
    """A mask of columns."""
    mask = np.zeros(SIZE, dtype=bool)
    mask[::every] = True
    start = (SIZE - center + 1) // 2
    mask[start : start + center] = True
    return mask


def values(document: dict[str, Any], metric: str, kind: str = "volumes") -> dict[str, list[float]]:
    """Of each method, in the order of the rows."""
    found: dict[str, list[float]] = {}
    for row in document[kind]:
        found.setdefault(row["method"], []).append(row[metric])
    return found


def only(rows: list[dict[str, Any]], **keys: str) -> dict[str, Any]:
    (row,) = (row for row in rows if all(row[key] == value for key, value in keys.items()))
    return row
