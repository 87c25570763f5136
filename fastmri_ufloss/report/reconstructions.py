"""Reconstructions of several methods of the same volumes, beside their references, segmentations and k-space."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import h5py
from tqdm import tqdm

from fastmri_ufloss.data.index import list_volumes
from fastmri_ufloss.data.segmentation import NAME, QUIET_SECONDS
from fastmri_ufloss.report.reconstructed_volume import VolumeFiles, read_shape, read_text

__all__ = ["KSPACE", "LeftOut", "Reconstructions", "name_some"]

KSPACE, MASKS = "k-space", "masks"
SHOWN = 10  # names in a message
Shape = tuple[int, int, int]


class LeftOut(NamedTuple):
    """A volume that is not compared.

    Args:
        volume: its file name.
        source: the method, reference or other folder that is to blame.
        why: in words.
    """

    volume: str
    source: str
    why: str


class Reconstructions:
    """The volumes that several methods have reconstructed, matched by their file names.

    Images are the data set ``reconstruction`` of leaderboard files, or ``reconstruction_rss`` or
    ``reconstruction_esc`` of fastMRI volumes; segmentations are the data set ``segmentation``, k-space ``kspace`` and
    masks ``mask``. Where the sizes of images, segmentations and k-space differ, all are cropped around their centre
    to the smallest rows and columns, as fastMRI crops images. Only shapes and attributes are read here.

    Args:
        methods: folder of each method by its name.
        references: folder of the fully sampled images by their names; may be none.
        segmentations: folder of volumes with a segmentation; this and the next two may have more volumes than the
            methods.
        kspace: folder of fastMRI volumes.
        masks: folder of files with a sampling mask.
        common: leave out volumes that not all folders have, that cannot be read, or whose numbers of slices differ;
            they are an error otherwise.

    Raises:
        FileNotFoundError: if a folder is missing or has no volume.
        ValueError: if there is no method, a reference has the name of a method, one of them is called "segmentation",
            "k-space" or "masks", or volumes are not as above; the message names all of them.
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
        if reserved := sorted({NAME, KSPACE, MASKS} & {*methods, *references}):
            raise ValueError(
                f"methods and references must have other names than {NAME!r}, {KSPACE!r} and {MASKS!r}, "
                f"which the report has itself, got {', '.join(reserved)}: name the folder with NAME=FOLDER"
            )
        both = sorted(set(methods) & set(references))
        if not methods or both:
            wrong = f"{', '.join(both)} of both" if both else "no method"
            raise ValueError(f"methods must be at least one, with other names than the references, got {wrong}")
        self.methods, self.references = list(methods), list(references)
        self.left_out: list[LeftOut] = []
        """Volumes that are not compared, with ``common``."""
        self._images = {name: _volumes_of(name, folder) for name, folder in {**references, **methods}.items()}
        more = {NAME: segmentations, KSPACE: kspace, MASKS: masks}
        self._more = {name: _volumes_of(name, folder) for name, folder in more.items() if folder is not None}
        names = self._match(common=common)
        bar = tqdm(names, desc="Sizes", unit="volume", delay=QUIET_SECONDS)
        self._shapes = self._read_shapes(bar, common=common)
        if not self._shapes:
            raise ValueError(f"the folders must have volumes in common, got none of {len(self._every)} that all have")
        self.patient_ids = {name: self._read_text(name, "patient_id") for name in self._shapes}
        """The attribute ``patient_id`` of each volume, from the first of its files that has one, or empty."""
        self.volumes = [self._files_of(name) for name in self._shapes]
        """In the order of their names."""

    @property
    def cropped(self) -> dict[str, str]:
        """What is cropped, in words, by the name of the volume."""
        found = {}
        for name, shapes in self._shapes.items():
            smallest = _smallest(shapes.values())
            larger: dict[tuple[int, int], list[str]] = {}
            for source, (_, rows, cols) in shapes.items():
                if (rows, cols) != smallest:
                    larger.setdefault((rows, cols), []).append(source)
            if larger:
                sizes = ", ".join(f"{rows}x{cols} ({', '.join(of)})" for (rows, cols), of in larger.items())
                found[name] = f"{sizes} to {smallest[0]}x{smallest[1]}"
        return found

    def __len__(self) -> int:
        return len(self.volumes)

    @property
    def _every(self) -> set[str]:
        return set[str]().union(*self._images.values())

    def _match(self, *, common: bool) -> list[str]:
        """The names of the volumes that all folders have, which must be all volumes unless ``common``."""
        every = self._every
        wrong = []
        for source, paths in {**self._images, **self._more}.items():
            missing = sorted(every - set(paths))
            self.left_out += [LeftOut(name, source, "the folder has no such file") for name in missing]
            if missing:
                wrong.append(f"{source} lacks {len(missing)} of {len(every)} volumes: {name_some(missing)}")
        if wrong and not common:
            raise ValueError(
                f"all methods and references must have the same volumes: {'; '.join(wrong)}; add them, or take only "
                "those that all have with common (--common)"
            )
        lacking = {left.volume for left in self.left_out}
        return sorted(every - lacking)

    def _read_shapes(self, names: Iterable[str], *, common: bool) -> dict[str, dict[str, Shape]]:
        found, wrong = {}, []
        for name in names:
            shapes: dict[str, Shape] = {}
            for source, paths in {**self._images, **self._more}.items():
                if source == MASKS:
                    continue
                try:
                    shapes[source] = _shape_of(source, paths[name])
                except ValueError as error:
                    wrong.append(LeftOut(name, source, str(error)))
            if len({shape[0] for shape in shapes.values()}) > 1:
                counts = ", ".join(f"{shape[0]} of {source}" for source, shape in shapes.items())
                wrong.append(LeftOut(name, "all", f"{name} has different numbers of slices: {counts}"))
            found[name] = shapes
        if wrong and not common:
            raise ValueError(
                f"{'; '.join(left.why for left in wrong[:SHOWN])}{_more(wrong)}; mend them, or leave such volumes "
                "out with common (--common)"
            )
        self.left_out += wrong
        bad = {left.volume for left in wrong}
        return {name: shapes for name, shapes in found.items() if name not in bad}

    def _files_of(self, name: str) -> VolumeFiles:
        shapes = self._shapes[name]
        # an identifier that all share tells nothing
        is_told = len(set(self.patient_ids.values())) > 1
        return VolumeFiles(
            name=name,
            references={source: self._images[source][name] for source in self.references},
            outputs={source: self._images[source][name] for source in self.methods},
            num_slices=next(iter(shapes.values()))[0],
            size=_smallest(shapes.values()),
            segmentation=self._more.get(NAME, {}).get(name),
            kspace=self._more.get(KSPACE, {}).get(name),
            mask=self._more.get(MASKS, {}).get(name),
            subject=(is_told and self.patient_ids[name]) or name,
            contrast=self._read_text(name, "acquisition"),
        )

    def _read_text(self, name: str, attribute: str) -> str:
        """An attribute of the first file of a volume that has it."""
        sources = (NAME, KSPACE, *self.references, *self.methods)
        paths = [paths[name] for source in sources if (paths := {**self._images, **self._more}.get(source))]
        return next((text for path in paths if (text := read_text(path, attribute))), "")


def name_some(names: Sequence[str]) -> str:
    """The first of some names, and how many more there are."""
    return ", ".join(names[:SHOWN]) + _more(names)


def _more(listed: Sequence[object]) -> str:
    return f" and {len(listed) - SHOWN} more" if len(listed) > SHOWN else ""


def _smallest(shapes: Iterable[Shape]) -> tuple[int, int]:
    """The smallest rows and columns."""
    _, rows, cols = (min(sizes) for sizes in zip(*shapes, strict=True))
    return rows, cols


def _volumes_of(source: str, folder: str | Path) -> dict[str, Path]:
    if not Path(folder).is_dir():
        raise FileNotFoundError(f"no folder {folder} of {source}")
    try:
        return {path.name: path for path in list_volumes(folder)}
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{error}, the folder of {source}") from error


def _shape_of(source: str, path: Path) -> Shape:
    if source != KSPACE:
        return read_shape(path, is_segmentation=source == NAME)
    try:
        with h5py.File(path, "r") as file:
            data = file.get("kspace")
            is_array = isinstance(data, h5py.Dataset)
            shape: tuple[int, ...] = data.shape if is_array else ()
            kind = data.dtype.kind if is_array else ""
    except OSError as error:
        raise ValueError(f"{path} is not an HDF5 file, or it is truncated ({error})") from error
    if kind != "c" or len(shape) not in (3, 4) or 0 in shape:
        wanted = "a data set 'kspace' of complex numbers (slices, coils, rows, cols)"
        raise ValueError(f"{path} must have {wanted}, got kind {kind!r} and shape {shape}")
    return shape[0], shape[-2], shape[-1]
