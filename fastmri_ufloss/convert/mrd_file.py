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

__all__ = ["import_ismrmrd", "write_mrd"]

HERTZ_PER_TESLA = 42.577e6
SLAB = 4096  # acquisitions that are written at once: one at a time is slow
MAX_SAMPLES = 2**16 - 1  # a number of 16 bits in the file


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

    Acquisitions have the index of ky in ``kspace_encode_step_1`` and that of kz in ``kspace_encode_step_2`` (or
    that of the slice in ``slice``); the centre of the encoding limits is ``size // 2``. The file appears under
    its name when it is complete, and the memory is that of a few coils.

    Args:
        path: of the file; its folder is made if it is missing.
        kspace: complex and centred, coil by coil, each (readout, rows, cols) for (kx, ky, kz): an iterator, or an
            array (coils, readout, rows, cols).
        mask: lines that are acquired, boolean (rows, cols); all by default.
        oversampling: of the readout. Images are padded with zeros along it in the orthonormal convention, so
            that those of the file, cropped, are the images of ``kspace``. Encoded space of the header is
            larger than its recon space then.
        multislice: cols are slices of a 2D scan rather than kz.
        order_seed: of the order of the acquisitions, at random; by default one column after the other.
        noise_scan: complex (coils, samples), written first, as a noise measurement.
        field_of_view: in mm, of readout, rows and cols; with ``multislice`` the last is the distance of slices.
        field_strength: in T.
        patient_id: of the subject.
        protocol: name of the protocol.

    Raises:
        ImportError: if the package ismrmrd is missing.
        ValueError: if an argument is out of its range or does not fit, or the k-space is not finite.
    """
    ismrmrd = import_ismrmrd()
    check(isinstance(oversampling, int) and oversampling >= 1, "oversampling", "a whole number from 1", oversampling)
    check(len(field_of_view) == 3 and min(field_of_view) > 0, "field_of_view", "three above 0", field_of_view)
    check(order_seed is None or order_seed >= 0, "order_seed", "at least 0, or None", order_seed)
    check(field_strength > 0, "field_strength", "above 0", field_strength)
    with atomic_path(path) as temporary, tempfile.TemporaryFile(dir=Path(path).parent) as stage:
        coils, shape, lines = _stage_lines(stage, kspace, mask, oversampling, order_seed)
        samples = np.memmap(stage, dtype=np.complex64, mode="r", shape=(coils, len(lines), shape[0] * oversampling))
        header = _make_header(
            ismrmrd.xsd,
            shape,
            oversampling=oversampling,
            multislice=multislice,
            field_of_view=field_of_view,
            coils=coils,
            field_strength=field_strength,
            patient_id=patient_id,
            protocol=protocol,
        )
        heads = _make_heads(ismrmrd, lines, samples.shape[2], coils, multislice, field_of_view[2], shape[2])
        with h5py.File(temporary, "w") as file:
            group = file.create_group("dataset")
            group.create_dataset("xml", (1,), dtype=h5py.special_dtype(vlen=bytes))[0] = header
            data = group.create_dataset("data", (0,), maxshape=(None,), dtype=ismrmrd.hdf5.acquisition_dtype)
            if noise_scan is not None:
                _append(data, _noise_head(ismrmrd, noise_scan, coils), noise_scan[:, None])
                heads["scan_counter"] += 1
            for start in range(0, len(lines), SLAB):
                _append(data, heads[start : start + SLAB], samples[:, start : start + SLAB])


def import_ismrmrd() -> ModuleType:
    """The optional package ismrmrd.

    Raises:
        ImportError: if it is missing, with the command that installs it.
    """
    try:
        import ismrmrd
        import ismrmrd.hdf5
        import ismrmrd.xsd
    except ImportError as error:
        raise ImportError(f"MRD files need ismrmrd ({error}): pip install 'fastmri-ufloss[convert]'") from error
    return ismrmrd


def _stage_lines(
    stage: Any, kspace: Iterable[np.ndarray], mask: np.ndarray | None, oversampling: int, order_seed: int | None
) -> tuple[int, tuple[int, int, int], np.ndarray]:
    """Put the acquired lines on disk, (coils, lines, samples), in their order.

    Coils come one after the other, but an acquisition has all of them.

    Returns:
        The number of coils, the shape of a coil's k-space, and (row, col) of the lines, (lines, 2).
    """
    shape: tuple[int, ...] | None = None
    coils = 0
    for coil in kspace:
        coil = np.asarray(coil)
        if shape is None:
            fits = np.iscomplexobj(coil) and coil.ndim == 3 and min(coil.shape) >= 1
            layout = "complex, (coils, readout, rows, cols), each at least 1"
            check(fits, "kspace", layout, f"{coil.dtype} {coil.shape} for a coil")
            limit = max(coil.shape[0] * oversampling, *coil.shape[1:])
            check(limit <= MAX_SAMPLES, "kspace", f"of at most {MAX_SAMPLES} samples along an axis", limit)
            shape, lines = coil.shape, _order_lines((coil.shape[1], coil.shape[2]), mask, order_seed)
        check(coil.shape == shape, "kspace", f"of the same shape {shape} for all coils", coil.shape)
        acquired = coil[:, lines[:, 0], lines[:, 1]].T
        if not np.isfinite(acquired).all():
            raise ValueError(f"kspace must be finite, got NaN or infinite values in coil {coils}")
        stage.write(np.ascontiguousarray(_oversample(acquired, oversampling), dtype=np.complex64).data)
        coils += 1
    if shape is None:
        raise ValueError("kspace must be (coils, readout, rows, cols), each at least 1, got no coils")
    stage.flush()
    return coils, (shape[0], shape[1], shape[2]), lines


def _order_lines(shape: tuple[int, int], mask: np.ndarray | None, order_seed: int | None) -> np.ndarray:
    """(row, col) of the acquired lines in their order, (lines, 2)."""
    acquired = np.ones(shape, dtype=bool) if mask is None else np.asarray(mask).astype(bool)
    check(acquired.shape == shape, "mask", f"of shape {shape}", acquired.shape)
    check(bool(acquired.any()), "mask", "true somewhere", "no acquired line")
    lines = np.argwhere(acquired.T)[:, ::-1]  # one column after the other
    return lines if order_seed is None else np.random.default_rng(order_seed).permutation(lines)


def _oversample(lines: np.ndarray, oversampling: int) -> np.ndarray:
    """Lines (lines, readout) with more samples along the readout."""
    if oversampling == 1:
        return lines
    size = lines.shape[1]
    images = fft.fftshift(fft.ifft(fft.ifftshift(lines, axes=1), norm="ortho"), axes=1)
    padded = np.zeros((len(lines), size * oversampling), dtype=images.dtype)
    start = padded.shape[1] // 2 - size // 2  # the centres stay the same
    padded[:, start : start + size] = images
    return fft.fftshift(fft.fft(fft.ifftshift(padded, axes=1), norm="ortho"), axes=1)


def _make_header(
    xsd: Any,
    shape: tuple[int, int, int],
    *,
    oversampling: int,
    multislice: bool,
    field_of_view: tuple[float, float, float],
    coils: int,
    field_strength: float,
    patient_id: str,
    protocol: str,
) -> bytes:
    """The XML header: x is the readout, y are rows, z are cols."""
    (readout, rows, cols), (x, y, z) = shape, field_of_view
    spaces = {
        name: xsd.encodingSpaceType(
            matrixSize=xsd.matrixSizeType(x=readout * factor, y=rows, z=1 if multislice else cols),
            fieldOfView_mm=xsd.fieldOfViewMm(x=x * factor, y=y, z=z),
        )
        for name, factor in (("encodedSpace", oversampling), ("reconSpace", 1))
    }
    steps = {
        "kspace_encoding_step_0": readout * oversampling,
        "kspace_encoding_step_1": rows,
        "kspace_encoding_step_2": 1 if multislice else cols,
        "slice": cols if multislice else 1,
    }
    limits = {name: xsd.limitType(minimum=0, maximum=n - 1, center=n // 2) for name, n in steps.items()}
    header = xsd.ismrmrdHeader(
        subjectInformation=xsd.subjectInformationType(patientID=patient_id or None),
        measurementInformation=xsd.measurementInformationType(
            patientPosition=xsd.patientPositionType.FFS, protocolName=protocol or None
        ),
        acquisitionSystemInformation=xsd.acquisitionSystemInformationType(
            systemFieldStrength_T=field_strength, receiverChannels=coils
        ),
        experimentalConditions=xsd.experimentalConditionsType(
            H1resonanceFrequency_Hz=round(HERTZ_PER_TESLA * field_strength)
        ),
        encoding=[
            xsd.encodingType(
                **spaces,
                encodingLimits=xsd.encodingLimitsType(**limits),
                trajectory=xsd.trajectoryType.CARTESIAN,
            )
        ],
    )
    return xsd.ToXML(header, encoding="utf-8").encode()


def _make_heads(
    ismrmrd: Any, lines: np.ndarray, samples: int, coils: int, multislice: bool, spacing: float, cols: int
) -> np.ndarray:
    """The acquisitions' headers, in ismrmrd's type."""
    heads = _empty_heads(ismrmrd, len(lines), samples, coils)
    heads["scan_counter"] = np.arange(len(lines))
    heads["center_sample"] = samples // 2
    heads["idx"]["kspace_encode_step_1"] = lines[:, 0]
    heads["idx"]["slice" if multislice else "kspace_encode_step_2"] = lines[:, 1]
    if multislice:
        heads["position"][:, 2] = (lines[:, 1] - (cols - 1) / 2) * spacing
    groups = lines[:, 1] if multislice else np.zeros(len(lines), dtype=int)
    firsts = np.unique(groups, return_index=True)[1]
    lasts = len(groups) - 1 - np.unique(groups[::-1], return_index=True)[1]
    heads["flags"][firsts] |= _flag(ismrmrd.ACQ_FIRST_IN_SLICE)
    heads["flags"][lasts] |= _flag(ismrmrd.ACQ_LAST_IN_SLICE)
    heads["flags"][-1] |= _flag(ismrmrd.ACQ_LAST_IN_MEASUREMENT)
    return heads


def _noise_head(ismrmrd: Any, noise_scan: np.ndarray, coils: int) -> np.ndarray:
    layout = f"complex, ({coils} coils, samples)"
    fits = np.iscomplexobj(noise_scan) and noise_scan.ndim == 2 and noise_scan.shape[0] == coils
    fits = fits and 1 <= noise_scan.shape[1] <= MAX_SAMPLES
    check(fits, "noise_scan", layout, f"{noise_scan.dtype} {noise_scan.shape}")
    heads = _empty_heads(ismrmrd, 1, noise_scan.shape[1], coils)
    heads["flags"] = _flag(ismrmrd.ACQ_IS_NOISE_MEASUREMENT)
    return heads


def _empty_heads(ismrmrd: Any, number: int, samples: int, coils: int) -> np.ndarray:
    heads = np.zeros(number, dtype=ismrmrd.hdf5.acquisition_header_dtype)
    heads["version"] = 1
    heads["number_of_samples"] = samples
    heads["available_channels"] = heads["active_channels"] = coils
    for coil in range(coils):
        heads["channel_mask"][:, coil // 64] |= np.uint64(1 << coil % 64)
    # readout along the body, rows from left to right, cols from front to back
    heads["read_dir"], heads["phase_dir"], heads["slice_dir"] = (0, 0, 1), (1, 0, 0), (0, 1, 0)
    return heads


def _flag(number: int) -> np.uint64:
    return np.uint64(1 << number - 1)


def _append(data: h5py.Dataset, heads: np.ndarray, samples: np.ndarray) -> None:
    """Append acquisitions: headers (n,) and samples (coils, n, samples)."""
    records = np.empty(len(heads), dtype=data.dtype)
    records["head"] = heads
    lines = np.ascontiguousarray(samples.transpose(1, 0, 2), dtype=np.complex64).view(np.float32)
    nothing = np.empty(0, dtype=np.float32)
    for record, line in zip(range(len(records)), lines.reshape(len(records), -1), strict=True):
        records["data"][record], records["traj"][record] = line, nothing
    start = len(data)
    data.resize(start + len(records), axis=0)
    data[start:] = records
