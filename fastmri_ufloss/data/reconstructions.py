"""Reconstructions of several methods of the same volumes, beside their references and segmentations."""

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np
from fastmri.data.transforms import center_crop
from tqdm import tqdm

from fastmri_ufloss.data.index import list_volumes
from fastmri_ufloss.data.segmentation import COMMAND, NAME, QUIET_SECONDS, find_reconstruction

__all__ = ["ReconstructedVolume", "Reconstructions"]

REFERENCE = "reference"
SHOWN = 5  # names in a message
Shape = tuple[int, int, int]


class ReconstructedVolume(NamedTuple):
    """A volume of several methods; all arrays are (slices, rows, cols).

    Args:
        reference: magnitudes, float32.
        outputs: magnitudes by method, float32.
        segmentation: class numbers, int64; None without segmentations.
    """

    reference: np.ndarray
    outputs: dict[str, np.ndarray]
    segmentation: np.ndarray | None


class Reconstructions:
    """The volumes that several methods have reconstructed, matched by their file names and read one by one.

    Images are the data set ``reconstruction`` of leaderboard files, or ``reconstruction_rss`` or
    ``reconstruction_esc`` of fastMRI volumes; segmentations are the data set ``segmentation``. Where their sizes
    differ, all are cropped around their centre to the smallest rows and columns, as fastMRI crops images.

    Args:
        reference: folder of the fully sampled images.
        methods: folder of each method by its name.
        segmentations: folder of volumes with a data set ``segmentation``; it may have more volumes than the others.
        common: leave out volumes that not all folders have, which are an error otherwise.

    Raises:
        FileNotFoundError: if a folder is missing or has no volume.
        ValueError: if there is no method or one is called ``"reference"``, a folder lacks volumes, or the images of
            a volume cannot be read or differ in their number of slices.
    """

    def __init__(
        self,
        reference: str | Path,
        methods: Mapping[str, str | Path],
        *,
        segmentations: str | Path | None = None,
        common: bool = False,
    ) -> None:
        if not methods or REFERENCE in methods:
            raise ValueError(f"methods must be at least one, and none be called {REFERENCE!r}, got {list(methods)}")
        self.methods = list(methods)
        folders = {REFERENCE: Path(reference), **{name: Path(folder) for name, folder in methods.items()}}
        self.num_left_out = 0
        """Volumes that not all folders have."""
        self._segmentations = None if segmentations is None else _volumes_of(NAME, Path(segmentations))
        self._images = {name: _volumes_of(name, folder) for name, folder in folders.items()}
        self.names = self._match(common=common)
        """File names of the volumes."""
        bar = tqdm(self.names, desc="Sizes", unit="volume", delay=QUIET_SECONDS)
        self._shapes = {name: self._read_shapes(name) for name in bar}

    @property
    def cropped(self) -> dict[str, str]:
        """What is cropped, in words, by the name of the volume."""
        found = {}
        for name, shapes in self._shapes.items():
            smallest = self._size(name)
            larger: dict[tuple[int, int], list[str]] = {}
            for source, (_, rows, cols) in shapes.items():
                if (rows, cols) != smallest:
                    larger.setdefault((rows, cols), []).append(source)
            if larger:
                sizes = ", ".join(f"{rows}x{cols} ({', '.join(of)})" for (rows, cols), of in larger.items())
                found[name] = f"{sizes} to {smallest[0]}x{smallest[1]}"
        return found

    @cached_property
    def classes(self) -> list[int]:
        """The classes but the background that any volume has; all segmentations are read for it, once."""
        found: set[int] = set()
        for name in tqdm(self.names, desc="Segmentations", unit="volume", delay=QUIET_SECONDS):
            segmentation = self._read_segmentation(name)
            if segmentation is not None:
                found |= set(np.unique(segmentation).tolist())
        return sorted(found - {0})

    @cached_property
    def patient_ids(self) -> dict[str, str]:
        """The attribute ``patient_id`` of each volume's segmentation, or else of its reference, or else empty."""
        found = {}
        for name in self.names:
            sources = [self._images[REFERENCE][name]]
            if self._segmentations is not None:
                sources.insert(0, self._segmentations[name])
            texts = [_read_patient_id(path) for path in sources]
            found[name] = next((text for text in texts if text), "")
        return found

    @property
    def subjects(self) -> dict[str, str]:
        """The subject of each volume: its patient_id; where it has none, or all have the same, its file name."""
        identifiers = self.patient_ids
        is_told = len(set(identifiers.values())) > 1
        return {name: (is_told and text) or name for name, text in identifiers.items()}

    def __len__(self) -> int:
        return len(self.names)

    def read(self, name: str) -> ReconstructedVolume:
        """The volume of a file name.

        Raises:
            ValueError: if an image is not finite, or the reference has no signal.
        """
        images = {source: self._crop(name, _read(paths[name])) for source, paths in self._images.items()}
        for source, volume in images.items():
            wrong = np.flatnonzero(~np.isfinite(volume).all(axis=(1, 2)))
            if wrong.size:
                path = self._images[source][name]
                raise ValueError(
                    f"{path} ({source}) must be finite, got NaN or infinite values in slices {wrong.tolist()}"
                )
        reference = images.pop(REFERENCE)
        if not reference.max() > 0:
            raise ValueError(f"{self._images[REFERENCE][name]} must have a signal, got a largest value of 0 or below")
        return ReconstructedVolume(reference, images, self._read_segmentation(name))

    def _match(self, *, common: bool) -> list[str]:
        """The names of the volumes that all folders have, which must be all volumes unless ``common``."""
        every = set().union(*self._images.values())
        sources = dict(self._images)
        if self._segmentations is not None:
            sources[NAME] = self._segmentations
        shared = every.intersection(*sources.values())
        for source, paths in sources.items():
            missing = sorted(every - set(paths))
            if missing and not common:
                raise ValueError(
                    f"{source} lacks {len(missing)} of {len(every)} volumes that are in other folders: "
                    f"{_some(missing)}; common takes only those that all have"
                )
        if not shared:
            raise ValueError(f"the folders must have volumes in common, got none of {len(every)} that all have")
        self.num_left_out = len(every) - len(shared)
        return sorted(shared)

    def _read_shapes(self, name: str) -> dict[str, Shape]:
        shapes = {source: _read_shape(paths[name]) for source, paths in self._images.items()}
        if self._segmentations is not None:
            shapes[NAME] = _read_shape(self._segmentations[name], is_segmentation=True)
        if len({shape[0] for shape in shapes.values()}) > 1:
            counts = ", ".join(f"{shape[0]} of {source}" for source, shape in shapes.items())
            raise ValueError(f"{name} must have the same number of slices in all folders, got {counts}")
        return shapes

    def _size(self, name: str) -> tuple[int, int]:
        """The smallest rows and columns of a volume."""
        shapes = self._shapes[name].values()
        return min(shape[1] for shape in shapes), min(shape[2] for shape in shapes)

    def _crop(self, name: str, volume: np.ndarray) -> np.ndarray:
        return np.asarray(center_crop(volume, self._size(name)))

    def _read_segmentation(self, name: str) -> np.ndarray | None:
        if self._segmentations is None:
            return None
        with h5py.File(self._segmentations[name], "r") as file:
            segmentation = np.asarray(file[NAME][()], dtype=np.int64)
        return self._crop(name, segmentation)


def _volumes_of(source: str, folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder {folder} of {source}")
    return {path.name: path for path in list_volumes(folder)}


def _some(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def _find_images(file: h5py.File) -> h5py.Dataset | None:
    return file["reconstruction"] if "reconstruction" in file else find_reconstruction(file)


def _read(path: Path) -> np.ndarray:
    with h5py.File(path, "r") as file:
        images = _find_images(file)
        if images is None:
            raise ValueError(f"{path} has no reconstruction any more")
        return np.asarray(images[()], dtype=np.float32)


def _read_shape(path: Path, *, is_segmentation: bool = False) -> Shape:
    """The shape of the images, or of the segmentation, of a file."""
    try:
        with h5py.File(path, "r") as file:
            data = file.get(NAME) if is_segmentation else _find_images(file)
            if data is None:
                wanted = f"{NAME!r}: add it with {COMMAND}" if is_segmentation else f"of images, only {sorted(file)}"
                raise ValueError(f"{path} has no data set {wanted}")
            kinds, kind, shape = "biu" if is_segmentation else "fiu", data.dtype.kind, data.shape
    except OSError as error:
        raise ValueError(f"{path} is not an HDF5 file, or it is truncated ({error})") from error
    if kind not in kinds or len(shape) != 3 or 0 in shape:
        what = "class numbers" if is_segmentation else "real magnitudes"
        raise ValueError(f"{path} must hold {what} (slices, rows, cols), got {shape} of kind {kind!r}")
    return shape


def _read_patient_id(path: Path) -> str:
    with h5py.File(path, "r") as file:
        text = file.attrs.get("patient_id", "")
    return (text.decode(errors="replace") if isinstance(text, bytes) else str(text)).strip()
