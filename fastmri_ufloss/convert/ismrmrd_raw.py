"""Cartesian raw data of scanners (ISMRMRD): which acquisitions are lines of the image, and where they go."""

import contextlib
import dataclasses
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np
from scipy import fft

from fastmri_ufloss.checks import check
from fastmri_ufloss.convert.volumes import naming, naming_source, warn_if_undersampled, whitening_matrix
from fastmri_ufloss.data.sampling import find_sampling, padding_of
from fastmri_ufloss.data.volume_files import hdf5_data_set, hdf5_member
from fastmri_ufloss.files import name_some
from fastmri_ufloss.simulation.mrd_file import flag_mask, import_ismrmrd
from fastmri_ufloss.simulation.volume_file import write_volume

__all__ = ["COUNTERS", "HEAD", "RawScan", "convert_ismrmrd", "write_scan"]

GROUP = "dataset"
FIELDS = (
    *("flags", "number_of_samples", "active_channels", "discard_pre", "discard_post", "center_sample"),
    *("encoding_space_ref", "sample_time_us"),
)
COUNTERS = (
    *("kspace_encode_step_1", "kspace_encode_step_2", "average", "slice"),
    *("contrast", "phase", "repetition", "set"),
)
TYPES = {"flags": np.uint64, "sample_time_us": np.float64}
HEAD = np.dtype([(name, TYPES.get(name, np.int64)) for name in (*FIELDS, *COUNTERS)])
ATTRIBUTES = {
    "system_vendor": "acquisitionSystemInformation.systemVendor",
    "system_model": "acquisitionSystemInformation.systemModel",
    "field_strength": "acquisitionSystemInformation.systemFieldStrength_T",
    "protocol_name": "measurementInformation.protocolName",
}
# what neither identifies the subject nor leads to it; patientPosition must be there
KEPT = {
    "measurementInformation": ("patientPosition", "protocolName", "sequenceName"),
    "acquisitionSystemInformation": (
        *("systemVendor", "systemModel", "systemFieldStrength_T"),
        *("relativeReceiverNoiseBandwidth", "receiverChannels"),
    ),
    "userParameters": ("userParameterLong", "userParameterDouble"),
}
NOISE = "ACQ_IS_NOISE_MEASUREMENT"
CALIBRATION = "ACQ_IS_PARALLEL_CALIBRATION"
SKIPPED = (
    *(NOISE, "ACQ_IS_NAVIGATION_DATA", "ACQ_IS_PHASECORR_DATA", "ACQ_IS_HPFEEDBACK_DATA", "ACQ_IS_DUMMYSCAN_DATA"),
    *("ACQ_IS_RTFEEDBACK_DATA", "ACQ_IS_SURFACECOILCORRECTIONSCAN_DATA"),
    *("ACQ_IS_PHASE_STABILIZATION_REFERENCE", "ACQ_IS_PHASE_STABILIZATION"),
)
MAX_ZERO_FILLING = 128
SLAB_BYTES = 2**23  # of acquisitions that are read and transformed at once
SLAB_HEADS = 2**8  # whose samples come along
TURNED = 16  # slices that are turned at once: their values are next to each other in memory


@naming_source
def convert_ismrmrd(
    source: Path,
    output: Path,
    *,
    dimensions: Literal["auto", "2d", "3d"] = "auto",
    contrast: int | None = None,
    phase: int | None = None,
    repetition: int | None = None,
    set_: int | None = None,
    average_repeats: bool = False,
    prewhiten: bool = True,
    noise_file: Path | None = None,
    patient_id: str = "",
    acquisition: str | None = None,
    max_memory: int = 2**30,
    attributes: Mapping[str, Any] | None = None,
) -> None:
    """Write the Cartesian raw data of an MRD file as a fastMRI volume.

        image = ifft2c(kspace) of the volume = the image of the file's k-space, cropped to its field of view

    Transforms are centered and orthonormal. K-space with gaps gets a mask and no reconstruction; with a scan of
    noise, coils are whitened, see `whitening_matrix`. Axes, and which acquisitions are taken: docs/data.md.

    Args:
        dimensions: of the encoding; auto is 3D if the header encodes more than one step along z.
        contrast, phase, repetition, set_: which one, if there are several.
        average_repeats: average lines that were acquired twice without being marked as averages.
        prewhiten: whiten the coils by the noise measurements of the file, if it has any.
        noise_file: another MRD file whose noise measurements are taken instead.
        patient_id: of the subject; that of the file is not copied.
        acquisition: fastMRI's name of the contrast, such as AXT2; by default the name of the protocol.

    Raises:
        ImportError: if the package ismrmrd is missing.
        ValueError: if the file is broken, not Cartesian or of several images, or an argument does not fit.
    """
    chosen = {"contrast": contrast, "phase": phase, "repetition": repetition, "set_": set_}
    write_scan(
        _open_scan,
        source,
        output,
        chosen,
        source_format="ISMRMRD",
        dimensions=dimensions,
        average_repeats=average_repeats,
        prewhiten=prewhiten,
        noise_file=noise_file,
        patient_id=patient_id,
        acquisition=acquisition,
        max_memory=max_memory,
        attributes=attributes,
    )


def write_scan(
    open_scan: Callable[[Path], contextlib.AbstractContextManager["RawScan"]],
    source: Path,
    output: Path,
    chosen: Mapping[str, int | None],
    *,
    source_format: str,
    dimensions: Literal["auto", "2d", "3d"],
    average_repeats: bool,
    prewhiten: bool,
    noise_file: Path | None,
    patient_id: str,
    acquisition: str | None,
    max_memory: int,
    attributes: Mapping[str, Any] | None,
) -> None:
    """Write raw data, which ``open_scan`` opens as those of an MRD file, as a volume: see `convert_ismrmrd`."""
    import_ismrmrd()
    check(dimensions in ("auto", "2d", "3d"), "dimensions", "one of auto, 2d, 3d", repr(dimensions))
    check(max_memory >= 1, "max_memory", "at least 1", max_memory)
    check(prewhiten or noise_file is None, "noise_file", "left out without prewhiten", noise_file)
    check(os.path.realpath(source) != os.path.realpath(output), "output", "another file than source", output)
    with open_scan(source) as scan:
        numbers, calibration, encoding = _select_lines(scan, chosen)
        geometry = _read_geometry(encoding, dimensions)
        lines = _place_lines(scan, numbers, calibration, geometry, average_repeats=average_repeats)
        first = scan.heads[lines.numbers[0]]
        whitener = _find_whitener(scan, first, noise_file, open_scan) if prewhiten else None
        sampled = lines.counts[0].reshape(geometry.size if geometry.is_3d else (1, -1)) > 0
        with naming("encodingLimits of the header"):
            padding = padding_of(sampled)
        mask = find_sampling(sampled, max_zeros=0)
        warn_if_undersampled(output, mask)
        coils = int(scan.heads["active_channels"][lines.numbers[0]])
        shape = (geometry.readout if geometry.is_3d else len(lines.counts), coils, *geometry.size)
        block = int(min(max(max_memory // (8 * coils * geometry.size[0] * geometry.size[1]), 1), shape[0]))
        facts = {name: _field(scan.header, place) for name, place in ATTRIBUTES.items()}
        facts = {name: value for name, value in facts.items() if value is not None}
        protocol = facts.get("protocol_name") or _field(scan.header, "measurementInformation.sequenceName")
        facts |= {"source_format": source_format, "prewhitened": whitener is not None}
        write_volume(
            output,
            _grid_slices(scan, lines, geometry, whitener, shape, block),
            shape=shape,
            recon_size=geometry.recon_size,
            mask=mask,
            padding=padding,
            acquisition=acquisition or protocol,
            patient_id=patient_id,
            voxel_size=geometry.voxel_size,
            attributes={**facts, **(attributes or {})},
            datasets={"source_header": _anonymous_header(scan.header)},
        )


@dataclass(frozen=True)
class RawScan:
    """An open file of raw data, as MRD has them."""

    path: Path
    header: Any  # as ismrmrd parses the XML
    heads: np.ndarray  # of all acquisitions, with the fields FIELDS and COUNTERS
    data: Any  # of the acquisitions, as the data set of an MRD file

    def has_flag(self, *names: str) -> np.ndarray:
        """Which acquisitions have one of the flags, boolean."""
        return np.asarray((self.heads["flags"] & flag_mask(*names)) != 0)

    def read_slabs(self, numbers: np.ndarray, wanted: np.ndarray | None = None) -> Iterator[tuple[slice, np.ndarray]]:
        """Acquisitions of one size, in slabs that depend on nothing but their rising ``numbers`` in the file.

        Yields:
            Which of the ``numbers``, and their samples, complex64 (acquisitions, coils, samples); slabs without any
            that is ``wanted``, boolean for each number, are left out.
        """
        coils, samples = (int(self.heads[name][numbers[0]]) for name in ("active_channels", "number_of_samples"))
        step = max(SLAB_BYTES // (8 * coils * samples), 1)
        layout = f"{2 * coils * samples} numbers for {coils} coils and {samples} complex samples"
        # ranges of the file, rather than as many numbers: there may be any distance between two numbers
        for first in range(int(numbers[0]), int(numbers[-1]) + 1, step):
            part = slice(*np.searchsorted(numbers, (first, first + step)).tolist())
            if part.start == part.stop or not (wanted is None or wanted[part].any()):
                continue
            start, stop = int(numbers[part][0]), int(numbers[part][-1]) + 1
            with _reading(self.path):
                values = self.data[start:stop]["data"][numbers[part] - start]
            for number, value in zip(numbers[part].tolist(), values, strict=True):
                got = f"{value.size}: it is damaged, or compressed"
                check(value.size == 2 * coils * samples, f"{self.path}: acquisition {number}", layout, got)
            lines = np.concatenate(values).view(np.complex64).reshape(-1, coils, samples)
            for number in numbers[part][~np.isfinite(lines).all(axis=(1, 2))][:1]:
                raise ValueError(f"{self.path}: acquisition {number} has NaN or infinite values")
            yield part, lines


@contextlib.contextmanager
def _open_scan(path: Path) -> Iterator[RawScan]:
    """Open an MRD file; its acquisitions are in the group ``dataset``, or in the only one there is."""
    with _reading(path):
        file = h5py.File(path, "r")
    with file:
        with naming(path), _reading(path):
            group = _find_group(file)
            xml, data = np.asarray(group["xml"][()]).ravel()[0], group["data"]
            heads = np.empty(len(data), dtype=HEAD)
            for start in range(0, len(data), SLAB_HEADS):
                # whole records: HDF5 never frees the samples of fields that are left out
                part = data[start : start + SLAB_HEADS]["head"]
                for name in HEAD.names or ():
                    heads[name][start : start + SLAB_HEADS] = part[name] if name in FIELDS else part["idx"][name]
        try:
            header = import_ismrmrd().xsd.CreateFromDocument(xml if isinstance(xml, bytes) else str(xml).encode())
        except Exception as error:  # missing fields are missing arguments of its classes, and more
            raise ValueError(f"{path}: the header is broken, or fields are missing ({error})") from error
        yield RawScan(path, header, heads, data)


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, RuntimeError, KeyError, TypeError, IndexError) as error:  # h5py and numpy raise all of them
        raise ValueError(f"{path} is not an HDF5 file, or it is truncated ({error})") from error


def _find_group(file: h5py.File) -> h5py.Group:
    groups = {name: group for name in file if isinstance(group := hdf5_member(file, name), h5py.Group)}
    scans = [name for name, group in groups.items() if hdf5_data_set(group, "data") is not None]
    if GROUP not in scans and len(scans) != 1:
        got = f"data in {', '.join(scans)}" if scans else f"{', '.join(file) or 'nothing'} without"
        where = f"in the group '{GROUP}' or in a single other one, got {got}: is it an ISMRMRD file of raw data?"
        raise ValueError(f"there must be acquisitions, a data set 'data', {where}")
    name = GROUP if GROUP in scans else scans[0]
    group = groups[name]
    xml = hdf5_data_set(group, "xml")
    if xml is None or xml.size != 1:
        raise ValueError(f"the group '{name}' has no header, a data set 'xml' of one text")
    if group["data"].size == 0 or not {"head", "data"} <= {*(group["data"].dtype.names or ())}:
        raise ValueError(f"the group '{name}' has no acquisitions with the fields head and data")
    return group


def _field(header: Any, name: str) -> Any:
    """A field of a header or of a part of it, with dots between the parts of its name; None if it is missing."""
    for part in name.split("."):
        header = getattr(header, part, None)
    return header


def _anonymous_header(header: Any) -> bytes:
    """The XML of a header without what identifies the subject, such as dates, names and texts of user parameters."""
    kept: dict[str, Any] = {"subjectInformation": None, "studyInformation": None, "waveformInformation": []}
    for name, fields in KEPT.items():
        part = getattr(header, name)
        kept[name] = part and type(part)(**{field: getattr(part, field) for field in fields})
    return str(import_ismrmrd().xsd.ToXML(dataclasses.replace(header, **kept), encoding="utf-8")).encode()


@dataclass(frozen=True)
class Geometry:
    """The grid of a scan."""

    is_3d: bool  # positions along the readout become slices
    samples: int  # of the encoded readout, with oversampling
    readout: int  # of these, the positions in the field of view of the reconstruction
    size: tuple[int, int]  # (rows, cols) of the k-space of a slice
    recon_size: tuple[int, int]  # (rows, cols) of its reconstruction
    voxel_size: tuple[float, float, float]  # of rows, columns and slices, in mm
    shifts: tuple[int, int]  # from kspace_encode_step_1 and _2 to places in the encoded grid


def _read_geometry(encoding: Any, dimensions: str) -> Geometry:
    """The grid that an encoding of the header describes.

    Images are cropped to the field of view of ``reconSpace``: ``round(encoded matrix * recon fov / encoded fov)``
    points, at most those encoded, which is the recon matrix unless that is interpolated.
    """
    trajectory = getattr(encoding.trajectory, "value", encoding.trajectory)
    check(trajectory == "cartesian", "trajectory", "cartesian", f"{trajectory}: grid the data, for example in BART")
    spaces = []
    for name in ("encodedSpace.matrixSize", "encodedSpace.fieldOfView_mm", "reconSpace.fieldOfView_mm"):
        spaces.append([float(_field(encoding, f"{name}.{axis}") or 0) for axis in "xyz"])
        fits = all(0 < size < np.inf for size in spaces[-1])
        check(fits, f"{name} of the header", "above 0", f"{spaces[-1]}: correct it")
    matrix, fields = [int(size) for size in spaces[0]], list(zip(*spaces[1:], strict=True))
    sizes = [round(size * recon / encoded) for size, (encoded, recon) in zip(matrix, fields, strict=True)]
    counts = np.clip(sizes, 1, matrix).tolist()
    spacing = [min(field) / count for field, count in zip(fields, counts, strict=True)]
    is_3d = matrix[2] > 1 if dimensions == "auto" else dimensions == "3d"
    check(not is_3d or matrix[2] > 1, "encodedSpace.matrixSize.z", "above 1 for dimensions '3d'", matrix[2])

    def shift(axis: int) -> int:
        name = f"encodingLimits.kspace_encoding_step_{axis}.center"
        center = _field(encoding, name)
        check(center is not None, f"{name} of the header", "a number", "none: add it to the XML of the file")
        return matrix[axis] // 2 - int(center)

    rows, cols, slices = (1, 2, 0) if is_3d else (0, 1, 2)  # axes x, y, z of the encoding
    grid = (counts[0], *matrix[1:])
    return Geometry(
        is_3d=is_3d,
        samples=matrix[0],
        readout=counts[0],
        size=(grid[rows], grid[cols]),
        recon_size=(counts[rows], counts[cols]),
        voxel_size=(spacing[rows], spacing[cols], spacing[slices]),
        shifts=(shift(1), shift(2) if is_3d else 0),
    )


def _select_lines(scan: RawScan, chosen: Mapping[str, int | None]) -> tuple[np.ndarray, np.ndarray, Any]:
    """The acquisitions of one image, whether each is for calibration only, and the encoding of the header."""
    heads, wanted = scan.heads, ~scan.has_flag(*SKIPPED)
    calibration = scan.has_flag(CALIBRATION) & ~scan.has_flag(f"{CALIBRATION}_AND_IMAGING")
    got = f"{np.count_nonzero(wanted)} of calibration and {np.count_nonzero(~wanted)} of noise and the like"
    check(bool((wanted & ~calibration).any()), "some acquisitions", "of an image", got)
    for option, value in chosen.items():
        name, imaging = option.rstrip("_"), np.flatnonzero(wanted & ~calibration)
        if value is None:
            value = _single(scan, imaging, name, f"choose one by {option}=")
        values = np.unique(heads[name][imaging]).tolist()
        check(value in values, option, f"one of those in the file, {name_some(values)}", value)
        wanted &= heads[name] == value
    imaging = np.flatnonzero(wanted & ~calibration)
    alike = ("number_of_samples", "active_channels", "encoding_space_ref")
    advice = "leave out those that are not of the image, or put each kind into a file of its own"
    samples, coils, reference = values = [_single(scan, imaging, name, advice) for name in alike]
    check(min(samples, coils) >= 1, " and ".join(alike[:2]), "at least 1", f"{values[:2]}: the file is damaged")
    encodings = scan.header.encoding
    text = f"below the number of encodings in the header, {len(encodings)}"
    check(reference < len(encodings), "encoding_space_ref", text, f"{reference}: correct it")
    encoding = encodings[reference]
    # lines of calibration only (ACS) may be no part of the image's k-space
    mode = _field(encoding, "parallelImaging.calibrationMode")
    fits = np.full(len(heads), getattr(mode, "value", mode) not in ("separate", "external"))
    for name, value in zip(alike, values, strict=True):
        fits &= heads[name] == value
    numbers = np.flatnonzero(wanted & (~calibration | fits))
    return numbers, calibration[numbers], encoding


def _single(scan: RawScan, numbers: np.ndarray, name: str, advice: str) -> int:
    """The value that a field has in all of some acquisitions."""
    values, firsts = np.unique(scan.heads[name][numbers], return_index=True)
    got = [f"{value} in acquisition {number}" for value, number in zip(values, numbers[firsts], strict=True)]
    check(len(values) == 1, name, "the same for all lines", f"{name_some(got)}: {advice}")
    return int(values[0])


@dataclass(frozen=True)
class Lines:
    """Acquisitions and their places."""

    numbers: np.ndarray  # of the acquisitions in the file, rising
    places: np.ndarray  # of each in the k-space: slice * cols + col, or in 3D row * cols + col
    counts: np.ndarray  # acquisitions of each place, (slices, cols) or in 3D (1, rows * cols)
    # (start, pre, post, reverse) of each: samples but the first pre and last post, reversed or not, begin at start
    readouts: np.ndarray


def _place_lines(
    scan: RawScan, numbers: np.ndarray, calibration: np.ndarray, geometry: Geometry, *, average_repeats: bool
) -> Lines:
    """Where lines go; a calibration line is left out where the image has a line.

    place = kspace_encode_step - center of its limits + encoded matrix // 2
    """
    (rows, cols), slices = geometry.size, scan.heads["slice"][numbers]
    size = rows * cols if geometry.is_3d else cols
    declared = int(np.ptp(slices) + 1) * size, geometry.samples
    acquired = len(numbers), int(scan.heads["number_of_samples"][numbers[0]])
    for name, most, count in zip(("lines", "samples of a line"), acquired, declared, strict=True):
        text = f"at most {MAX_ZERO_FILLING} times the {most} acquired"
        check(count <= MAX_ZERO_FILLING * most, f"{name} of encodedSpace and slices", text, count)
    steps = _place(scan, numbers, "kspace_encode_step_1", geometry.shifts[0], rows if geometry.is_3d else cols)
    if geometry.is_3d:
        _single(scan, numbers, "slice", "they are slabs, put one into a file of its own; or choose dimensions '2d'")
        places = steps * cols + _place(scan, numbers, "kspace_encode_step_2", geometry.shifts[1], cols)
    else:
        advice = "they are steps of a 3D scan, with matrixSize.z above 1; or choose dimensions '3d'"
        _single(scan, numbers, "kspace_encode_step_2", advice)
        places = (slices - slices.min()) * cols + steps
    kept = ~calibration | ~np.isin(places, places[~calibration])
    numbers, places = numbers[kept], places[kept]
    if not average_repeats:
        _check_repeats(scan, numbers, places)
    counts = np.bincount(places, minlength=(int(places.max()) // size + 1) * size).reshape(-1, size)
    sampled = counts > 0
    complete = sampled.any(axis=0)
    for index in np.flatnonzero((sampled != complete).any(axis=1))[:1].tolist():
        missing = (np.flatnonzero(complete & ~sampled[index]) - geometry.shifts[0]).tolist()
        text = f"{missing[:10]} (kspace_encode_step_1; {len(missing)} in all), which other slices have"
        raise ValueError(f"missing lines: slice {slices.min() + index} has no lines {text}")
    return Lines(numbers, places, counts, _place_readouts(scan, numbers, geometry.samples))


def _place(scan: RawScan, numbers: np.ndarray, name: str, shift: int, size: int) -> np.ndarray:
    values = scan.heads[name][numbers]
    places = values + shift
    for index in np.flatnonzero((places < 0) | (places >= size))[:1]:
        limits = f"from {-shift} to {size - 1 - shift}, for {size} encoded lines and the center {size // 2 - shift}"
        got = f"{values[index]} in acquisition {numbers[index]}: correct matrixSize or encodingLimits in the header"
        raise ValueError(f"{name} must be {limits}, got {got}")
    return np.asarray(places)


def _check_repeats(scan: RawScan, numbers: np.ndarray, places: np.ndarray) -> None:
    averages = scan.heads["average"][numbers]
    lines = places * (averages.max() + 1) + averages
    repeats = lines[_rank(lines) > 0]
    if repeats.size:
        first, second = numbers[lines == repeats.min()][:2]
        names = ("slice", "kspace_encode_step_1", "kspace_encode_step_2", "average")
        line = ", ".join(f"{name} {scan.heads[name][first]}" for name in names)
        text = f"acquisitions {first} and {second} are both of {line}: set average_repeats?"
        raise ValueError(f"{len(repeats)} repeated lines: {text}")


def _rank(values: np.ndarray) -> np.ndarray:
    """How many of the same value come before each."""
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    ranks = np.empty_like(order)
    ranks[order] = np.arange(len(values)) - np.searchsorted(ordered, ordered)
    return ranks


def _place_readouts(scan: RawScan, numbers: np.ndarray, samples: int) -> np.ndarray:
    """See `Lines`. The center sample is that of the readout in the order of k-space, as scanners write it."""
    heads, reverse = scan.heads[numbers], scan.has_flag("ACQ_IS_REVERSE")[numbers]
    pre, post, size = heads["discard_pre"], heads["discard_post"], heads["number_of_samples"]
    center = heads["center_sample"] - np.where(reverse, post, pre)
    left = size - pre - post
    # some writers leave the center at 0; a full readout has one place only
    center = np.where((heads["center_sample"] == 0) & (left == samples), samples // 2, center)
    start = samples // 2 - center
    for index in np.flatnonzero((start < 0) | (start + left > samples) | (left < 1))[:1]:
        names = ("center_sample", "discard_pre", "discard_post")
        got = ", ".join([f"{size[index]} samples", *(f"{name} {heads[name][index]}" for name in names)])
        layout = f"in the encoded matrix of {samples} samples"
        raise ValueError(f"the readout must be {layout}, got {got} in acquisition {numbers[index]}")
    return np.stack([start, pre, post, reverse], axis=1)


def _find_whitener(
    scan: RawScan,
    head: np.ndarray,
    noise_file: Path | None,
    open_scan: Callable[[Path], contextlib.AbstractContextManager[RawScan]],
) -> np.ndarray | None:
    """The whitening matrix for acquisitions with this head, or None if their file has no noise measurements."""
    with contextlib.nullcontext(scan) if noise_file is None else open_scan(noise_file) as noise_scan:
        numbers = np.flatnonzero(noise_scan.has_flag(NOISE))
        if not numbers.size:
            if noise_file is None:
                return None
            raise ValueError(f"{noise_file} must have noise measurements ({NOISE}), got none")
        with naming(f"{noise_scan.path}: noise measurements, left out if prewhiten is False"):
            heads, coils = noise_scan.heads[numbers], int(head["active_channels"])
            for other in numbers[heads["active_channels"] != coils][:1]:
                got = f"{noise_scan.heads['active_channels'][other]} in acquisition {other}"
                raise ValueError(f"there must be the {coils} coils of the image, got {got}")
            noise = []
            for number, pre, post in zip(numbers, heads["discard_pre"], heads["discard_post"], strict=True):
                _, samples = next(noise_scan.read_slabs(np.array([number])))
                noise.append(samples[0, :, pre : samples.shape[2] - post])
            dwell, noise_dwell = float(head["sample_time_us"]), float(heads["sample_time_us"][0])
            bandwidth = _field(noise_scan.header, "acquisitionSystemInformation.relativeReceiverNoiseBandwidth")
            ratio = (bandwidth or 1.0) * dwell / noise_dwell if dwell > 0 and noise_dwell > 0 else 1.0
            return whitening_matrix(np.concatenate(noise, axis=1), bandwidth_ratio=ratio).astype(np.complex64)


def _grid_slices(
    scan: RawScan, lines: Lines, geometry: Geometry, whitener: np.ndarray | None, shape: tuple[int, ...], block: int
) -> Iterator[np.ndarray]:
    """K-space (coils, rows, cols) of one slice after the other, in blocks for each of which the file is read once."""
    slices, coils, rows, cols = shape
    ranks = _rank(lines.places)
    for start in range(0, slices, block):
        stop = min(start + block, slices)
        inside, places, counts = np.ones(len(lines.numbers), dtype=bool), lines.places, lines.counts
        if not geometry.is_3d:
            places, counts = places - start * cols, counts[start:stop]
            inside = (places >= 0) & (places < counts.size)
        # lines as a whole, which is how they come: they are turned at the end
        grid = np.zeros((counts.size, coils, stop - start if geometry.is_3d else rows), dtype=np.complex64)
        # all lines of a slab are transformed, also those of other blocks: values must not depend on the block
        for part, samples in scan.read_slabs(lines.numbers, inside):
            readouts = _transform_readouts(samples, lines.readouts[part], geometry)
            if whitener is not None:
                readouts = whitener @ readouts
            if geometry.is_3d:
                readouts = readouts[:, :, start:stop]
            for rank in np.unique(ranks[part]):
                chosen = np.flatnonzero(inside[part] & (ranks[part] == rank))
                where = places[part][chosen]
                grid[where] = readouts[chosen] if rank == 0 else grid[where] + readouts[chosen]
        if counts.max() > 1:
            grid *= (1 / np.maximum(counts, 1)).astype(np.float32).reshape(-1, 1, 1)
        if not geometry.is_3d:
            yield from grid.reshape(-1, cols, coils, rows).transpose(0, 2, 3, 1)
            continue
        for first in range(0, stop - start, TURNED):
            turned = grid[:, :, first : first + TURNED].transpose(2, 1, 0)
            yield from np.ascontiguousarray(turned).reshape(-1, coils, rows, cols)


def _transform_readouts(samples: np.ndarray, readouts: np.ndarray, geometry: Geometry) -> np.ndarray:
    """Acquisitions (n, coils, samples) on the grid of the readout and without oversampling, for 3D transformed."""
    count, coils, size = samples.shape
    full = np.zeros((count, coils, geometry.samples), dtype=np.complex64)
    kinds, which = np.unique(readouts, axis=0, return_inverse=True)
    for number, (start, pre, post, reverse) in enumerate(kinds.tolist()):
        chosen = which.ravel() == number
        kept = samples[chosen, :, pre : size - post]
        full[chosen, :, start : start + kept.shape[2]] = kept[:, :, ::-1] if reverse else kept
    if not geometry.is_3d and geometry.readout == geometry.samples:
        return full
    images = fft.fftshift(fft.ifft(fft.ifftshift(full, axes=2), norm="ortho", overwrite_x=True), axes=2)
    first = geometry.samples // 2 - geometry.readout // 2  # the centers stay the same
    images = images[:, :, first : first + geometry.readout]
    if geometry.is_3d:
        return images
    return fft.fftshift(fft.fft(fft.ifftshift(images, axes=2), norm="ortho", overwrite_x=True), axes=2)
