"""Volumes that several methods have reconstructed, beside their references, segmentations, k-space and masks."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
from fastmri.data.transforms import center_crop
from tqdm import tqdm

from fastmri_ufloss.data.index import list_volumes
from fastmri_ufloss.data.segmentation import COMMAND, NAME, QUIET_SECONDS, find_reconstruction
from fastmri_ufloss.data.volume_files import open_hdf5
from fastmri_ufloss.files import file_stamp, name_some

__all__ = [
    "ReconstructedVolume",
    "Reconstructions",
    "VolumeFiles",
    "path_stamp",
    "read_mask",
    "read_shape",
    "read_text",
    "reference_kind",
]

KSPACE, MASKS = "k-space", "masks"
Shape = tuple[int, int, int]

# the data set of a source, and what its lack is called; images are any other source
CONTENTS = {NAME: (NAME, f"{NAME!r}: add it with {COMMAND}"), KSPACE: ("kspace", "'kspace'")}


class ReconstructedVolume(NamedTuple):
    """A volume, or a slice of a volume: float32 magnitudes and int64 class numbers, (slices, rows, cols) each."""

    references: dict[str, np.ndarray]
    outputs: dict[str, np.ndarray]
    segmentation: np.ndarray | None


@dataclass(frozen=True)
class VolumeFiles:
    """The files of a volume; all of its images are cropped to ``size`` (rows, cols) around their center."""

    name: str
    subject: str
    contrast: str  # fastMRI's attribute ``acquisition``
    num_slices: int
    size: tuple[int, int]
    references: Mapping[str, Path]
    outputs: Mapping[str, Path]
    segmentation: Path | None = None
    kspace: Path | None = None
    mask: Path | None = None

    @property
    def stamp(self) -> list[Any]:
        """Plain values that tell whether the volume has changed: its files, their sizes and times."""
        more = ((NAME, self.segmentation), (KSPACE, self.kspace), ("mask", self.mask))
        files = [*self.references.items(), *self.outputs.items(), *more]
        stamps = [[source, *path_stamp(path)] for source, path in files if path is not None]
        return [self.name, self.num_slices, list(self.size), *stamps]

    def read(self, slice_num: int | None = None) -> ReconstructedVolume:
        """The volume, or one slice as a volume; ValueError names a file that cannot be read any more."""
        where = slice(None) if slice_num is None else slice(slice_num, slice_num + 1)

        def read(source: str, path: Path, dtype: type = np.float32) -> np.ndarray:
            with open_hdf5(path) as file:
                images: np.ndarray = np.asarray(_find_data(file, source)[where], dtype=dtype)
            return np.ascontiguousarray(center_crop(images, self.size))

        references = {source: read(source, path) for source, path in self.references.items()}
        outputs = {source: read(source, path) for source, path in self.outputs.items()}
        segmentation = None if self.segmentation is None else read(NAME, self.segmentation, np.int64)
        return ReconstructedVolume(references, outputs, segmentation)

    def read_masks(self) -> dict[str, np.ndarray]:
        """The sampling mask of each method whose file has one, boolean, (cols,) or (rows, cols)."""
        masks = {method: read_mask(path) for method, path in self.outputs.items()}
        return {method: mask for method, mask in masks.items() if mask is not None}


class Reconstructions:
    """The volumes that several methods have reconstructed, matched by their file names; only shapes are read here.

    Images are those of leaderboard files or of fastMRI volumes. Where the sizes of images, segmentations and k-space
    differ, all are cropped around their center to the smallest rows and columns, as fastMRI crops images.

    Args:
        methods, references: folder of each method, and of fully sampled images, by name.
        segmentations, kspace, masks: folders of files with the data set ``segmentation``, ``kspace`` or ``mask``;
            they may have more volumes than the methods.
        common: leave out volumes that not all folders have, that cannot be read, or whose numbers of slices differ.

    Raises:
        FileNotFoundError: if a folder is missing or has no volume.
        ValueError: if names are not different, or volumes are not as above; the message names all of them.

    Attributes:
        volumes: `VolumeFiles` in the order of their names.
        left_out: rows of ``volume``, ``slice`` (None), ``source`` and ``why``, of volumes that are not compared.
        cropped: the sizes in words, by the name of a volume that is cropped.
        patient_ids: the attribute ``patient_id``, or nothing, by the name of a volume.
    """

    def __init__(
        self,
        methods: Mapping[str, str | Path],
        references: Mapping[str, str | Path],
        *,
        segmentations: str | Path | None = None,
        kspace: str | Path | None = None,
        masks: str | Path | None = None,
        common: bool = False,
    ) -> None:
        if not methods:
            raise ValueError("methods must be at least one, got no method")
        if several := ({*methods} & {*references}) | ({NAME, KSPACE, MASKS} & {*methods, *references}):
            raise ValueError(
                f"methods must have other names than the references, and none of them {NAME}, {KSPACE} or {MASKS}, "
                f"got {', '.join(sorted(several))}: name the folder with NAME=FOLDER"
            )
        self.methods, self.references = list(methods), list(references)
        self.left_out: list[dict[str, Any]] = []
        more = {NAME: segmentations, KSPACE: kspace, MASKS: masks}
        folders = {**references, **methods, **{s: folder for s, folder in more.items() if folder is not None}}
        self._paths = {source: _list_volumes(source, folder) for source, folder in folders.items()}
        names = set[str]().union(*(self._paths[source] for source in (*references, *methods)))
        bar = tqdm(sorted(names), desc="Sizes", unit="volume", delay=QUIET_SECONDS)
        shapes = {name: of_volume for name in bar if (of_volume := self._read_shapes(name))}
        if self.left_out and not common:
            reasons = name_some([row["why"] for row in self.left_out])
            raise ValueError(f"{reasons}; mend them, or leave such volumes out with common (--common)")
        if not shapes:
            raise ValueError(f"the folders must have volumes in common, got none of {len(names)} that all have")
        self.patient_ids = {name: self._read_text(name, "patient_id") for name in shapes}
        self.cropped: dict[str, str] = {}
        self.volumes = [self._make_files(name, of_volume) for name, of_volume in shapes.items()]

    def __len__(self) -> int:
        return len(self.volumes)

    def _read_shapes(self, name: str) -> dict[str, Shape]:
        """The shapes (slices, rows, cols) of a volume by source; none if the volume does not fit and is left out."""
        wrong = {source: f"{source} lacks {name}" for source, paths in self._paths.items() if name not in paths}
        shapes: dict[str, Shape] = {}
        for source in self._paths if not wrong else ():
            try:
                if source != MASKS:
                    shapes[source] = read_shape(self._paths[source][name], source)
            except ValueError as error:
                wrong[source] = str(error)
        if len({shape[0] for shape in shapes.values()}) > 1:
            counts = ", ".join(f"{shape[0]} of {source}" for source, shape in shapes.items())
            wrong["all"] = f"{name} has different numbers of slices: {counts}"
        self.left_out += [{"volume": name, "slice": None, "source": s, "why": why} for s, why in wrong.items()]
        return {} if wrong else shapes

    def _make_files(self, name: str, shapes: Mapping[str, Shape]) -> VolumeFiles:
        num_slices, *size = (min(sizes) for sizes in zip(*shapes.values(), strict=True))
        larger = defaultdict(list)
        for source, shape in shapes.items():
            if list(shape[1:]) != size:
                larger["{1}x{2}".format(*shape)].append(source)
        if larger:
            sizes = ", ".join(f"{given} ({', '.join(sources)})" for given, sources in larger.items())
            self.cropped[name] = f"{sizes} to {size[0]}x{size[1]}"
        references = {source: self._paths[source][name] for source in self.references}
        outputs = {source: self._paths[source][name] for source in self.methods}
        more = [self._paths.get(source, {}).get(name) for source in (NAME, KSPACE, MASKS)]
        is_told = len(set(self.patient_ids.values())) > 1  # an identifier that all share tells nothing
        subject = (is_told and self.patient_ids[name]) or name
        contrast = self._read_text(name, "acquisition")
        return VolumeFiles(name, subject, contrast, num_slices, (size[0], size[1]), references, outputs, *more)

    def _read_text(self, name: str, attribute: str) -> str:
        """An attribute of the first file of a volume that has a text there."""
        sources = [source for source in (NAME, KSPACE, *self.references, *self.methods) if source in self._paths]
        texts = (read_text(self._paths[source][name], attribute) for source in sources)
        return next(filter(None, texts), "")


def path_stamp(path: Path) -> list[Any]:
    """Path, size and time of modification."""
    return [str(path.resolve()), *file_stamp(path)]


def read_shape(path: Path, source: str = "") -> Shape:
    """The shape (slices, rows, cols) of a file's images, or of its ``"segmentation"`` or ``"k-space"``.

    Raises ValueError if the file cannot be read, or has something else.
    """
    with open_hdf5(path) as file:
        num_slices, *_, rows, cols = _find_data(file, source).shape
    return num_slices, rows, cols


def read_text(path: Path, attribute: str) -> str:
    """An attribute of a file as text, empty without it."""
    with open_hdf5(path) as file:
        text = file.attrs.get(attribute, "")
    return (text.decode(errors="replace") if isinstance(text, bytes) else str(text)).strip()


def read_mask(path: Path) -> np.ndarray | None:
    """The data set ``mask`` of a file, boolean, (cols,) or (rows, cols); None without one.

    Raises ValueError if the file cannot be read or the mask has another shape.
    """
    with open_hdf5(path) as file:
        data = file.get("mask")
        if data is None:
            return None
        mask = np.asarray(data[()]).astype(bool)
    mask = mask.ravel() if mask.size == max(mask.shape, default=0) else mask
    if mask.ndim not in (1, 2) or not mask.any():
        raise ValueError(f"{path}: mask must be of columns (cols,) or of points (rows, cols), got {mask.shape}")
    return mask


def reference_kind(path: Path) -> str:
    """``"RSS"`` or ``"ESC"`` of a fastMRI volume, ``"reference"`` of a leaderboard file; ValueError without any."""
    kinds = {"reconstruction_rss": "RSS", "reconstruction_esc": "ESC"}
    with open_hdf5(path) as file:
        return kinds.get(Path(str(_find_data(file, "").name)).name, "reference")


def _find_data(file: h5py.File, source: str) -> h5py.Dataset:
    """The data set of the segmentation, of the k-space, or of images."""
    name, missing = CONTENTS.get(source, ("reconstruction", "of images"))
    data = file.get(name)
    if data is None and source not in CONTENTS:
        data = find_reconstruction(file)
    if data is None:
        raise ValueError(f"{file.filename} has no data set {missing}, only {sorted(file)}")
    return data


def _list_volumes(source: str, folder: str | Path) -> dict[str, Path]:
    try:
        return {path.name: path for path in list_volumes(folder)}
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{source}: {error}") from error
