"""Writing ISMRMRD raw data files (MRD) of Cartesian scans."""

import tempfile
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

import h5py
import numpy as np
from scipy import fft

from fastmri_ufloss.data.checks import check
from fastmri_ufloss.files import atomic_path

__all__ = ["flag_mask", "import_ismrmrd", "write_mrd"]

HERTZ_PER_TESLA = 42.577e6
SLAB = 4096  # acquisitions that are written at once: one at a time, as ismrmrd's own writer, takes 20 times as long
MAX_SAMPLES = 2**16 - 1  # a field of 16 bits in the file


def import_ismrmrd() -> ModuleType:
    """The optional package ismrmrd; ImportError with the command that installs a missing one."""
    try:
        import ismrmrd
        import ismrmrd.hdf5
        import ismrmrd.xsd
    except ImportError as error:
        raise ImportError(f"MRD files need ismrmrd ({error}): pip install 'fastmri-ufloss[convert]'") from error
    return ismrmrd


def flag_mask(*names: str) -> np.uint64:
    """The bits of flags, such as ``"ACQ_IS_REVERSE"``; those that an old version does not know are left out."""
    ismrmrd = import_ismrmrd()
    return np.uint64(sum(1 << (getattr(ismrmrd, name) - 1) for name in names if hasattr(ismrmrd, name)))


def write_mrd(
    path: str | Path,
    kspace: Iterable[np.ndarray],
    *,
    mask: np.ndarray | None = None,
    oversampling: int = 1,
    multislice: bool = False,
    order_seed: int | None = None,
    noise_scan: np.ndarray | None = None,
    field_of_view: tuple[float, float, float] = (160.0, 160.0, 160.0),
    field_strength: float = 3.0,
    patient_id: str = "",
    protocol: str = "",
) -> None:
    """Write Cartesian k-space as an ISMRMRD file, as scanners' raw data come, an acquisition for each line.

    The index of ky is ``kspace_encode_step_1``, that of kz ``kspace_encode_step_2``, that of a slice ``slice``. The
    file appears when it is complete, and the memory is that of a few coils.

    Args:
        path: of the file; its folder is made if it is missing.
        kspace: complex and centered, coil by coil, each (readout, rows, cols) for (kx, ky, kz).
        mask: lines that are acquired, boolean (rows, cols); all by default.
        oversampling: of the readout, whose images are padded with zeros, in the orthonormal convention.
        multislice: cols are slices of a 2D scan rather than kz.
        order_seed: of the order of the acquisitions, at random; by default one column after the other.
        noise_scan: complex (coils, samples), written first, as a noise measurement.
        field_of_view: in mm, of readout, rows and cols; with ``multislice`` the last is the distance of slices.
        field_strength: in T.

    Raises:
        ImportError: if the package ismrmrd is missing.
        ValueError: if an argument is out of its range or does not fit, or the k-space is not finite.
    """
    ismrmrd = import_ismrmrd()
    xsd = ismrmrd.xsd
    check(isinstance(oversampling, int) and oversampling >= 1, "oversampling", "a whole number from 1", oversampling)
    check(len(field_of_view) == 3 and min(field_of_view) > 0, "field_of_view", "three above 0", field_of_view)
    check(order_seed is None or order_seed >= 0, "order_seed", "at least 0, or None", order_seed)
    check(field_strength > 0, "field_strength", "above 0", field_strength)
    with atomic_path(path) as temporary, tempfile.TemporaryFile(dir=Path(path).parent) as stage:
        coils, shape, lines = _stage_lines(stage, kspace, mask, oversampling, order_seed)
        samples = np.memmap(stage, dtype=np.complex64, mode="r", shape=(coils, len(lines), shape[0] * oversampling))
        hertz = round(HERTZ_PER_TESLA * field_strength)
        header = xsd.ismrmrdHeader(
            subjectInformation=xsd.subjectInformationType(patientID=patient_id or None),
            measurementInformation=xsd.measurementInformationType(
                patientPosition=xsd.patientPositionType.FFS, protocolName=protocol or None
            ),
            acquisitionSystemInformation=xsd.acquisitionSystemInformationType(
                systemFieldStrength_T=field_strength, receiverChannels=coils
            ),
            experimentalConditions=xsd.experimentalConditionsType(H1resonanceFrequency_Hz=hertz),
            encoding=[_describe(xsd, shape, oversampling, multislice, field_of_view)],
        )
        heads = _make_heads(lines, samples.shape[2], coils, field_of_view[2] if multislice else None, shape[2])
        with h5py.File(temporary, "w") as file:
            group = file.create_group("dataset")
            xml = xsd.ToXML(header, encoding="utf-8").encode()
            group.create_dataset("xml", (1,), dtype=h5py.special_dtype(vlen=bytes))[0] = xml
            data = group.create_dataset("data", (0,), maxshape=(None,), dtype=ismrmrd.hdf5.acquisition_dtype)
            if noise_scan is not None:
                fits = np.iscomplexobj(noise_scan) and noise_scan.ndim == 2 and len(noise_scan) == coils
                fits = fits and 1 <= noise_scan.shape[1] <= MAX_SAMPLES
                got = f"{noise_scan.dtype} {noise_scan.shape}"
                check(fits, "noise_scan", f"complex, ({coils} coils, samples)", got)
                noise_head = _empty_heads(1, noise_scan.shape[1], coils)
                noise_head["flags"] = flag_mask("ACQ_IS_NOISE_MEASUREMENT")
                _append(data, noise_head, noise_scan[:, None])
                heads["scan_counter"] += 1
            for start in range(0, len(lines), SLAB):
                _append(data, heads[start : start + SLAB], samples[:, start : start + SLAB])


def _stage_lines(
    stage: Any, kspace: Iterable[np.ndarray], mask: np.ndarray | None, oversampling: int, order_seed: int | None
) -> tuple[int, tuple[int, int, int], np.ndarray]:
    """Put the acquired lines on disk, (coils, lines, samples): an acquisition has all coils, which come in turn.

    The result is the number of coils, the shape of a coil's k-space, and (row, col) of the lines in their order.
    """
    shape: tuple[int, ...] = ()
    coils = 0
    for coil in kspace:
        coil = np.asarray(coil)
        if not coils:
            fits = np.iscomplexobj(coil) and coil.ndim == 3 and min(coil.shape) >= 1
            layout = "complex, (coils, readout, rows, cols), each at least 1"
            check(fits, "kspace", layout, f"{coil.dtype} {coil.shape} for a coil")
            limit = max(coil.shape[0] * oversampling, *coil.shape[1:])
            check(limit <= MAX_SAMPLES, "kspace", f"of at most {MAX_SAMPLES} samples along an axis", limit)
            shape = coil.shape
            acquired = np.ones(shape[1:], dtype=bool) if mask is None else np.asarray(mask).astype(bool)
            check(acquired.shape == shape[1:], "mask", f"of shape {shape[1:]}", acquired.shape)
            check(bool(acquired.any()), "mask", "true somewhere", "no acquired line")
            lines = np.argwhere(acquired.T)[:, ::-1]  # one column after the other
            lines = lines if order_seed is None else np.random.default_rng(order_seed).permutation(lines)
        check(coil.shape == shape, "kspace", f"of the same shape {shape} for all coils", coil.shape)
        samples = coil[:, lines[:, 0], lines[:, 1]].T
        if not np.isfinite(samples).all():
            raise ValueError(f"kspace must be finite, got NaN or infinite values in coil {coils}")
        stage.write(np.ascontiguousarray(_oversample(samples, oversampling), dtype=np.complex64).data)
        coils += 1
    check(coils > 0, "kspace", "(coils, readout, rows, cols), each at least 1", "no coils")
    stage.flush()
    return coils, (shape[0], shape[1], shape[2]), lines


def _oversample(lines: np.ndarray, oversampling: int) -> np.ndarray:
    """Lines (lines, readout) with more samples along the readout."""
    if oversampling == 1:
        return lines
    size = lines.shape[1]
    images = fft.fftshift(fft.ifft(fft.ifftshift(lines, axes=1), norm="ortho"), axes=1)
    start = size * oversampling // 2 - size // 2  # the centers stay the same
    padded = np.pad(images, ((0, 0), (start, size * (oversampling - 1) - start)))
    return fft.fftshift(fft.fft(fft.ifftshift(padded, axes=1), norm="ortho"), axes=1)


def _describe(
    xsd: Any,
    shape: tuple[int, int, int],
    oversampling: int,
    multislice: bool,
    field_of_view: tuple[float, float, float],
) -> Any:
    """The geometry of the header: x is the readout, y are rows, z are cols."""
    (readout, rows, cols), (x, y, z) = shape, field_of_view
    steps, slices = (1, cols) if multislice else (cols, 1)
    spaces = {
        name: xsd.encodingSpaceType(
            matrixSize=xsd.matrixSizeType(x=readout * factor, y=rows, z=steps),
            fieldOfView_mm=xsd.fieldOfViewMm(x=x * factor, y=y, z=z),
        )
        for name, factor in (("encodedSpace", oversampling), ("reconSpace", 1))
    }
    counts = {f"kspace_encoding_step_{axis}": n for axis, n in enumerate((readout * oversampling, rows, steps))}
    counts["slice"] = slices
    limits = {name: xsd.limitType(minimum=0, maximum=n - 1, center=n // 2) for name, n in counts.items()}
    return xsd.encodingType(
        **spaces, encodingLimits=xsd.encodingLimitsType(**limits), trajectory=xsd.trajectoryType.CARTESIAN
    )


def _make_heads(lines: np.ndarray, samples: int, coils: int, spacing: float | None, cols: int) -> np.ndarray:
    """The acquisitions' headers, in ismrmrd's type; with the distance of slices, cols are slices."""
    heads = _empty_heads(len(lines), samples, coils)
    heads["scan_counter"] = np.arange(len(lines))
    heads["center_sample"] = samples // 2
    heads["idx"]["kspace_encode_step_1"] = lines[:, 0]
    heads["idx"]["kspace_encode_step_2" if spacing is None else "slice"] = lines[:, 1]
    if spacing is not None:
        heads["position"][:, 2] = (lines[:, 1] - (cols - 1) / 2) * spacing
    slices = heads["idx"]["slice"]
    firsts = np.unique(slices, return_index=True)[1]
    lasts = len(slices) - 1 - np.unique(slices[::-1], return_index=True)[1]
    heads["flags"][firsts] |= flag_mask("ACQ_FIRST_IN_SLICE")
    heads["flags"][lasts] |= flag_mask("ACQ_LAST_IN_SLICE")
    heads["flags"][-1] |= flag_mask("ACQ_LAST_IN_MEASUREMENT")
    return heads


def _empty_heads(count: int, samples: int, coils: int) -> np.ndarray:
    heads = np.zeros(count, dtype=import_ismrmrd().hdf5.acquisition_header_dtype)
    heads["version"] = 1
    heads["number_of_samples"] = samples
    heads["available_channels"] = heads["active_channels"] = coils
    for coil in range(coils):
        heads["channel_mask"][:, coil // 64] |= np.uint64(1 << coil % 64)
    # readout along the body, rows from left to right, cols from front to back
    heads["read_dir"], heads["phase_dir"], heads["slice_dir"] = (0, 0, 1), (1, 0, 0), (0, 1, 0)
    return heads


def _append(data: h5py.Dataset, heads: np.ndarray, samples: np.ndarray) -> None:
    """Append acquisitions: headers (n,) and samples (coils, n, samples)."""
    records = np.empty(len(heads), dtype=data.dtype)
    records["head"] = heads
    lines = np.ascontiguousarray(samples.transpose(1, 0, 2), dtype=np.complex64).view(np.float32)
    nothing = np.empty(0, dtype=np.float32)
    for record, line in enumerate(lines.reshape(len(records), -1)):
        records["data"][record], records["traj"][record] = line, nothing
    start = len(data)
    data.resize(start + len(records), axis=0)
    data[start:] = records
