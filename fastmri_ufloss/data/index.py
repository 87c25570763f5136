"""The metadata index: what is known of each volume of a folder, read once and kept as JSON."""

import hashlib
import json
import os
import time
import warnings
import xml.etree.ElementTree as etree
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from fastmri.data.mri_data import et_query
from tqdm import tqdm

from fastmri_ufloss.checks import check, require
from fastmri_ufloss.data.sampling import center_shape, mask_of_size, volume_sampling
from fastmri_ufloss.data.volume_files import open_hdf5
from fastmri_ufloss.files import file_stamp, name_some, write_json
from fastmri_ufloss.mri.coil_compression import coil_compression_matrix

__all__ = [
    "MetadataIndex",
    "list_volumes",
    "num_coils",
    "read_metadata",
    "read_split",
    "volume_coil_compression",
    "volume_scale",
]

VERSION = 3
SAVE_EVERY_SECONDS = 30.0
MAX_CALIBRATION_ROWS = 24  # of coil compression, as many as ESPIRiT reads


def list_volumes(folder: str | Path, names: Collection[str] | None = None) -> list[Path]:
    """The HDF5 volumes of a folder in the order of their names; anything else is skipped with a warning.

    A missing folder, or one without volumes, raises FileNotFoundError. With ``names`` the volumes are those of these
    file names; ValueError if one of them is not there.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder {folder}: the data path must contain it")
    paths = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    volumes = [path for path in paths if path.is_file() and path.suffix in (".h5", ".hdf5")]
    strays = sorted({path.name for path in paths} - {path.name for path in volumes})
    if strays:
        warnings.warn(f"{folder}: skipped {len(strays)} that are no HDF5 volumes: {name_some(strays)}", stacklevel=2)
    if not volumes:
        raise FileNotFoundError(f"no HDF5 volumes (*.h5) in {folder}")
    if names is None:
        return volumes
    if missing := sorted(set(names) - {path.name for path in volumes}):
        raise ValueError(f"{folder} lacks {len(missing)} volumes of the split: {name_some(missing)}")
    return [path for path in volumes if path.name in names]


def read_split(split: str | Path) -> dict[str, frozenset[str]]:
    """The file names of a division of a validation folder, by ``"val"`` and ``"test"``.

    A JSON file with the lists of file names ``val_list`` and ``test_list``, or the name of one that ships:
    "promptmr-knee", the 99 and 100 volumes of fastMRI's multi-coil knees that PromptMR (Xin et al., 2023) and others
    validate and test with, since the leaderboard is closed. FileNotFoundError or ValueError for another file.
    """
    shipped = Path(__file__).parent / "splits"
    path = shipped / f"{split}.json" if (shipped / f"{split}.json").is_file() else Path(split)
    if not path.is_file():
        names = ", ".join(sorted(file.stem for file in shipped.glob("*.json")))
        raise FileNotFoundError(f"no file {path} of a split; those that ship are {names}")
    try:
        lists = json.loads(path.read_text(encoding="utf-8"))
        parts = {part: frozenset(lists[f"{part}_list"]) for part in ("val", "test")}
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} must be JSON with the lists val_list and test_list, got {error!r}") from error
    for part, of_part in parts.items():
        fits = bool(of_part) and all(isinstance(name, str) for name in of_part)
        check(fits, f"{part}_list of {path}", "file names", sorted(map(str, of_part))[:3])
    both = sorted(parts["val"] & parts["test"])
    require(not both, f"{path} must have no volume in both lists", name_some(both))
    return parts


def read_metadata(path: str | Path, challenge: str) -> dict[str, Any]:
    """What fastMRI's ``SliceDataset`` knows of a volume, in plain values; ValueError names what cannot be used.

    These are ``padding_left``, ``padding_right``, ``encoding_size``, ``recon_size``, the file's attributes,
    ``kspace_shape`` and ``target_shape``; ``sampling`` (``"columns"`` or ``"points"``) by the file's ``mask`` or else
    `volume_sampling`, and ``mask_center`` (rows, cols), both None of a full volume.
    """
    with open_hdf5(path, "kspace", "ismrmrd_header") as volume:
        return {**_read_kspace_facts(path, volume, challenge), **_read_header(path, volume)}


def _read_kspace_facts(path: str | Path, volume: h5py.File, challenge: str) -> dict[str, Any]:
    kspace = volume["kspace"]
    shape = kspace.shape
    ndim, other = (4, "singlecoil") if challenge == "multicoil" else (3, "multicoil")
    layout = "(slices, coils, rows, cols)" if ndim == 4 else "(slices, rows, cols)"
    demand = f"{path}: kspace of a {challenge} volume must have shape {layout}"
    require(len(shape) == ndim, demand, f"{shape}; is it a {other} file?")
    facts = {name: _plain(value) for name, value in volume.attrs.items() if _plain(value) is not None}
    target = volume.get("reconstruction_rss" if ndim == 4 else "reconstruction_esc")
    facts["target_shape"] = None if target is None else list(target.shape[1:])
    facts["kspace_shape"] = list(shape)
    if "mask" in volume:
        mask: np.ndarray | None = mask_of_size(volume["mask"][()], *shape[-2:], where=str(path))
    else:
        mask = volume_sampling(kspace, where=str(path))
    facts["sampling"] = None if mask is None else ("columns" if mask.ndim == 1 else "points")
    facts["mask_center"] = None if mask is None else list(center_shape(mask, shape[-2]))
    return facts


def _read_header(path: str | Path, volume: h5py.File) -> dict[str, Any]:
    try:
        root = etree.fromstring(volume["ismrmrd_header"][()])

        def size(space: str) -> list[int]:
            return [int(et_query(root, ["encoding", space, "matrixSize", axis])) for axis in "xyz"]

        encoding_size, recon_size = size("encodedSpace"), size("reconSpace")
        limits = ["encoding", "encodingLimits", "kspace_encoding_step_1"]
        center = int(et_query(root, [*limits, "center"]))
        maximum = int(et_query(root, [*limits, "maximum"]))
        check(min(encoding_size + recon_size) >= 1, "sizes", "at least 1", (encoding_size, recon_size))
    except (etree.ParseError, RuntimeError, TypeError, ValueError) as error:
        raise ValueError(f"{path} has a broken 'ismrmrd_header' ({error})") from error
    # a negative padding, which some headers give, would blank every mask
    cols = volume["kspace"].shape[-1]
    start = encoding_size[1] // 2 - center
    left, right = max(start, 0), min(start + maximum + 1, cols)
    if not left < cols // 2 < right:
        raise ValueError(
            f"{path} has a broken 'ismrmrd_header': columns {left, right} leave out the center of {cols}"
        )
    return {"padding_left": left, "padding_right": right, "encoding_size": encoding_size, "recon_size": recon_size}


def _plain(value: Any) -> Any:
    """An HDF5 attribute as a plain value for JSON, None if it cannot be one."""
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    value = value.tolist() if isinstance(value, np.generic | np.ndarray) else value
    try:
        json.dumps(value)
    except TypeError:
        return None
    return value


def volume_scale(path: str | Path, center: tuple[int, int]) -> tuple[float, list[int]]:
    """Intensity scale of a volume: the 95th percentile of the root-sum-of-squares images of its center.

    The images have the resolution of that center (rows, cols) and the intensity of the zero-filled image of full
    size. Returns the scale, positive, and the slices without any signal, which do not count; a center that is not
    finite, or without a signal in any slice, raises ValueError.
    """
    magnitudes, empty = [], []
    with open_hdf5(path) as volume:
        kspace = volume["kspace"]
        size = kspace.shape[-2:]
        rows, cols = _center_slices(size, center)
        for index in range(kspace.shape[0]):
            middle = kspace[index, ..., rows, cols]
            if not np.isfinite(middle).all():
                raise ValueError(f"{path}: k-space of slice {index} has NaN or infinite values")
            if not middle.any():
                empty.append(index)
                continue
            shifted = np.fft.ifftshift(middle.reshape(-1, *center), axes=(-2, -1))
            images = np.fft.ifft2(shifted, norm="ortho") * np.sqrt(np.prod(center) / np.prod(size))
            magnitudes.append(np.sqrt((np.abs(images) ** 2).sum(axis=0)).astype(np.float32))
    scale = float(np.percentile(np.stack(magnitudes), 95)) if magnitudes else 0.0
    if not scale > 0:
        raise ValueError(f"{path}: no slice has a signal in its center of {center[0]}x{center[1]}")
    return scale, empty


def volume_coil_compression(path: str | Path, center: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """`coil_compression_matrix` of the center (rows, cols), at most 24 rows, of all slices of a multicoil volume."""
    with open_hdf5(path) as volume:
        kspace = volume["kspace"]
        rows, cols = _center_slices(kspace.shape[-2:], (min(center[0], MAX_CALIBRATION_ROWS), center[1]))
        calibration = torch.from_numpy(kspace[..., rows, cols].astype(np.complex64, copy=False))
    matrix, energies = coil_compression_matrix(torch.view_as_real(calibration))
    return matrix.numpy(), energies.numpy()


def _center_slices(size: tuple[int, int], center: tuple[int, int]) -> tuple[slice, slice]:
    rows, cols = (slice((n - m + 1) // 2, (n - m + 1) // 2 + m) for n, m in zip(size, center, strict=True))
    return rows, cols


def num_coils(metadata: dict[str, Any]) -> int:
    """The number of coils of a volume, 1 of single-coil data."""
    shape = metadata["kspace_shape"]
    return int(shape[1]) if len(shape) == 4 else 1


class MetadataIndex:
    """Metadata, intensity scales and coil compression of volumes, kept in a JSON file that is replaced as a whole.

    An entry is trusted as long as the volume has the same size and time of modification. A missing file, and with a
    warning a damaged one, is made anew. ``challenge`` is "singlecoil" or "multicoil", ValueError otherwise.
    """

    def __init__(self, path: str | Path, *, challenge: str) -> None:
        check(challenge in ("singlecoil", "multicoil"), "challenge", "'singlecoil' or 'multicoil'", repr(challenge))
        self.path = Path(path)
        self.challenge = challenge
        self._entries = self._read()

    @classmethod
    def for_folder(cls, folder: str | Path, cache_dir: str | Path, *, challenge: str) -> "MetadataIndex":
        """The index of a data folder, kept in ``cache_dir`` (the data folder may be read-only)."""
        folder = Path(os.path.realpath(folder))
        stamp = hashlib.sha256(str(folder).encode()).hexdigest()[:12]
        return cls(Path(cache_dir) / f"index-{folder.name}-{stamp}.json", challenge=challenge)

    def metadata(self, path: str | Path) -> dict[str, Any]:
        """`read_metadata` of a volume, from the index where it is known."""
        return dict(self._entry(Path(path))["metadata"])

    def scale(self, path: str | Path, center: tuple[int, int]) -> float:
        """`volume_scale` of a volume, from the index where it is known."""
        return float(self._scale_entry(Path(path), center)["scales"][_name(center)])

    def empty_slices(self, path: str | Path, center: tuple[int, int]) -> list[int]:
        """Slices of a volume without any signal."""
        return list(self._scale_entry(Path(path), center)["empty_slices"])

    def coil_compression(self, path: str | Path, center: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        """`volume_coil_compression` of a volume, from the index where it is known."""
        compression = self._compression_entry(Path(path), center)["coil_compression"][_name(center)]
        matrix = np.asarray(compression["matrix"], dtype=np.float32).view(np.complex64)[..., 0]
        return matrix, np.asarray(compression["energies"], dtype=np.float32)

    def build(
        self,
        paths: Iterable[Path],
        center: Callable[[dict[str, Any]], tuple[int, int]],
        *,
        num_virtual_coils: int | None = None,
    ) -> None:
        """Make what is missing, with a progress bar, saved as it goes; ``center`` maps metadata to (rows, cols).

        The coil compression is made of volumes with more coils than ``num_virtual_coils``, None for no compression.
        """
        missing = [path for path in paths if not self._is_known(path, center, num_virtual_coils)]
        if not missing:
            return
        saved = time.monotonic()
        for path in tqdm(missing, desc=f"Index of {missing[0].parent.name}", unit="volume"):
            metadata = self._entry(path)["metadata"]
            self._scale_entry(path, center(metadata))
            if num_virtual_coils is not None and num_coils(metadata) > num_virtual_coils:
                self._compression_entry(path, center(metadata))
            if time.monotonic() - saved > SAVE_EVERY_SECONDS:
                self.save()
                saved = time.monotonic()
        self.save()

    def save(self) -> None:
        """Write the index; entries that another process has added meanwhile are kept."""
        entries = {**self._read(), **self._entries}
        write_json(self.path, {"version": VERSION, "challenge": self.challenge, "volumes": entries})

    def _known(self, path: Path) -> dict[str, Any] | None:
        entry = self._entries.get(str(path.resolve()))
        return entry if entry is not None and entry["stamp"] == file_stamp(path) else None

    def _is_known(
        self, path: Path, center: Callable[[dict[str, Any]], tuple[int, int]], num_virtual_coils: int | None
    ) -> bool:
        entry = self._known(path)
        if entry is None:
            return False
        metadata, name = entry["metadata"], _name(center(entry["metadata"]))
        is_whole = num_virtual_coils is None or num_coils(metadata) <= num_virtual_coils
        return name in entry["scales"] and (is_whole or name in entry.get("coil_compression", {}))

    def _entry(self, path: Path) -> dict[str, Any]:
        entry = self._known(path)
        if entry is None:
            stamp, metadata = file_stamp(path), read_metadata(path, self.challenge)
            entry = {"stamp": stamp, "metadata": metadata, "scales": {}, "empty_slices": []}
            self._entries[str(path.resolve())] = entry
        return entry

    def _scale_entry(self, path: Path, center: tuple[int, int]) -> dict[str, Any]:
        entry = self._entry(path)
        if _name(center) not in entry["scales"]:
            entry["scales"][_name(center)], entry["empty_slices"] = volume_scale(path, center)
        return entry

    def _compression_entry(self, path: Path, center: tuple[int, int]) -> dict[str, Any]:
        entry = self._entry(path)
        known = entry.setdefault("coil_compression", {})  # which indexes of earlier versions have not
        if _name(center) not in known:
            matrix, energies = volume_coil_compression(path, center)
            parts = np.stack((matrix.real, matrix.imag), axis=-1)
            known[_name(center)] = {"matrix": parts.tolist(), "energies": energies.tolist()}
        return entry

    def _read(self) -> dict[str, Any]:
        if not self.path.is_file():
            return {}
        try:
            document = json.loads(self.path.read_text(encoding="utf-8"))
            if document["version"] == VERSION and document["challenge"] == self.challenge:
                return dict(document["volumes"])
        except (json.JSONDecodeError, KeyError, TypeError, UnicodeDecodeError):
            warnings.warn(f"{self.path} is damaged and is made anew", stacklevel=3)
        return {}


def _name(center: tuple[int, int]) -> str:
    return f"{center[0]}x{center[1]}"
