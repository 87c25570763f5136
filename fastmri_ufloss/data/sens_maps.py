"""Where coil maps come from when they are not computed on the device: a cache on disk, or the user's files.

For maps that are computed on the device the first step of their computation is kept on disk.
"""

import hashlib
import inspect
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from fastmri_ufloss.checks import check
from fastmri_ufloss.data.volume_files import open_hdf5
from fastmri_ufloss.files import atomic_path, file_stamp
from fastmri_ufloss.mri.coil_compression import compress_coils
from fastmri_ufloss.mri.espirit import estimate_sens_maps

__all__ = [
    "ScanSlice",
    "SensMapCache",
    "SensMapFiles",
    "SensMapSource",
    "UnitSensMaps",
    "read_coil_matrices",
    "write_coil_matrices",
]


class ScanSlice(NamedTuple):
    """What maps are made from: k-space (coils, rows, cols, 2), of which only what the mask has acquired is read."""

    kspace: Tensor
    mask: Tensor
    num_low_frequencies: int
    path: str | Path
    slice_num: int
    rows: range  # of the image, where maps are wanted
    matrix: Tensor | None  # what virtual coils were made with, see `compress_coils`


class SensMapSource(Protocol):
    """Gives the maps of some rows of a slice, (coils, rows, cols, 2) or (sets, coils, rows, cols, 2)."""

    needs_center: bool  # whether the maps are made from the fully sampled center of k-space

    def __call__(self, scan: ScanSlice) -> Tensor: ...

    def key(self, path: str | Path) -> str:
        """What the maps of a volume depend on, beside the volume."""


class SensMapCache:
    """ESPIRiT maps of each slice, computed once and kept on disk in half precision.

    Maps depend on the fully sampled center alone: at most ``calibration_size`` lines, or a square of that side where
    the mask is one of points. A changed volume or parameter makes a new file; any number of processes may share the
    folder.

    Args:
        folder: of the cache; about as large as the k-space in the end.
        calibration_size, num_maps: see `estimate_sens_maps`.
    """

    needs_center = True

    def __init__(self, folder: str | Path, *, calibration_size: int = 24, num_maps: int = 1) -> None:
        self.folder = Path(folder)
        self.calibration_size, self.num_maps = calibration_size, num_maps

    def key(self, path: str | Path) -> str:
        settings = inspect.signature(estimate_sens_maps).parameters.values()
        maths = [x for x in settings if x.kind is x.KEYWORD_ONLY and x.name != "coil_matrices"]
        defaults = [setting.default for setting in maths]
        return f"espirit-2 {self.calibration_size} {self.num_maps} {defaults}"

    def file(
        self,
        num_low_frequencies: int,
        path: str | Path,
        slice_num: int,
        *,
        square_center: bool = False,
        matrix: Tensor | None = None,
    ) -> Path:
        """The file of a slice's maps, whether or not it exists."""
        path = Path(path).resolve()
        size = min(num_low_frequencies, self.calibration_size)
        # a square of the largest size is what is used of lines as well
        center = [size, size] if square_center and size < self.calibration_size else size
        key = [str(path), *file_stamp(path), center, self.key(path)]
        if matrix is not None:
            key.append(matrix.numpy().tobytes().hex())
        stamp = hashlib.sha256(json.dumps(key).encode()).hexdigest()[:16]
        return self.folder / f"{path.stem}-{stamp}" / f"{slice_num:04d}.npy"

    def file_of(self, scan: ScanSlice) -> Path:
        """`file` of a slice that is at hand."""
        is_square = scan.mask.shape[1] > 1
        return self.file(
            scan.num_low_frequencies, scan.path, scan.slice_num, square_center=is_square, matrix=scan.matrix
        )

    def __call__(self, scan: ScanSlice) -> Tensor:
        file, shape = self.file_of(scan), tuple(scan.kspace.shape)
        maps = _read(file, np.float16, shape if self.num_maps == 1 else (self.num_maps, *shape))
        if maps is None:
            estimated = estimate_sens_maps(
                scan.kspace[None],
                scan.num_low_frequencies,
                mask=scan.mask[None],
                calibration_size=self.calibration_size,
                num_maps=self.num_maps,
            )
            maps = estimated[0].half().numpy()
            _write(file, maps)
        # the rounded ones at the first use too: a run must not depend on the state of its cache
        return torch.from_numpy(maps[..., scan.rows.start : scan.rows.stop, :, :].astype(np.float32))


def read_coil_matrices(files: Sequence[str], device: torch.device) -> dict[int, Tensor]:
    """The coil matrices of a batch for `estimate_sens_maps`, of those of its slices that have a file."""
    found = {i: _read(Path(file), np.complex64) for i, file in enumerate(files)}
    return {
        i: torch.from_numpy(matrices.copy()).to(device, non_blocking=True)
        for i, matrices in found.items()
        if matrices is not None
    }


def write_coil_matrices(files: Sequence[str], coil_matrices: Mapping[int, Tensor]) -> None:
    """Keep coil matrices, of some slices of a batch, in their files."""
    for i, matrices in coil_matrices.items():
        _write(Path(files[i]), matrices.cpu().numpy())


def _read(file: Path, dtype: type, shape: tuple[int, ...] | None = None) -> np.ndarray | None:
    """None for a file that is missing or damaged."""
    try:
        array: np.ndarray = np.load(file, allow_pickle=False, mmap_mode="r")
    except (FileNotFoundError, EOFError, ValueError):
        return None
    return array if array.dtype == dtype and shape in (None, array.shape) else None


def _write(file: Path, array: np.ndarray) -> None:
    with atomic_path(file) as temporary, open(temporary, "wb") as stream:
        np.save(stream, array)


class SensMapFiles:
    """The user's own maps (BART's, sigpy's): for each volume an HDF5 file of the same name.

    Each has a complex data set ``sens_maps`` (slices, coils, rows, cols), or (coils, rows, cols) for all slices, or,
    of several sets, (slices, sets, coils, rows, cols). For virtual coils the maps are compressed as k-space is, and
    keep their norm over the coils. A missing folder raises FileNotFoundError.
    """

    needs_center = False

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        if not self.folder.is_dir():
            raise FileNotFoundError(f"no folder {self.folder} with coil maps")

    def key(self, path: str | Path) -> str:
        file = Path(os.path.realpath(self.folder / Path(path).name))
        return f"{file} {tuple(file_stamp(file)) if file.is_file() else None}"

    def __call__(self, scan: ScanSlice) -> Tensor:
        file = self.folder / Path(scan.path).name
        if not file.exists():
            raise FileNotFoundError(f"no coil maps {file}: each volume needs a file of its name")
        with open_hdf5(file, "sens_maps") as volume:
            stored = volume["sens_maps"]
            has_slice = stored.ndim > 3 and scan.slice_num < stored.shape[0]
            maps = stored[scan.slice_num] if has_slice else stored[()]
        matrix, (coils, *size, _) = scan.matrix, scan.kspace.shape
        coils, sets = coils if matrix is None else matrix.shape[1], maps.shape[:-3] if has_slice else ()
        name, shape = f"{file}: sens_maps of slice {scan.slice_num}", (*sets, coils, *size)
        check(bool(np.isfinite(maps).all()), name, "finite", "NaN or infinite values")
        check(maps.shape == shape, name, f"of shape {shape}", maps.shape)
        given = torch.view_as_real(
            torch.from_numpy(maps[..., scan.rows.start : scan.rows.stop, :].astype(np.complex64))
        )
        return given if matrix is None else _compress_maps(given, matrix)


def _compress_maps(maps: Tensor, matrix: Tensor) -> Tensor:
    """Maps of virtual coils with the norm of those that were given: data consistency and reference have one image."""
    compressed = compress_coils(maps, matrix)
    norms = [x.square().sum(dim=(-4, -1), keepdim=True).sqrt() for x in (maps, compressed)]
    return compressed * torch.where(norms[1] > 0, norms[0] / norms[1], 0)


class UnitSensMaps:
    """Maps of ones for single-coil data: the image is the Fourier transform of the k-space, everywhere."""

    needs_center = False

    def key(self, path: str | Path) -> str:
        return "ones"

    def __call__(self, scan: ScanSlice) -> Tensor:
        check(len(scan.kspace) == 1, f"{scan.path}: coils", "1 for maps of ones", len(scan.kspace))
        maps = torch.zeros_like(scan.kspace[:, scan.rows.start : scan.rows.stop])
        maps[..., 0] = 1
        return maps
