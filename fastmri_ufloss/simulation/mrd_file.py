"""Writing ISMRMRD raw data files (MRD) of Cartesian scans."""

import itertools
import tempfile
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

import h5py
import numpy as np
from scipy import fft

from fastmri_ufloss.checks import check
from fastmri_ufloss.files import atomic_path

__all__ = ["flag_mask", "import_ismrmrd", "write_mrd"]

FIELD_STRENGTH, RESONANCE = 3.0, 127731000  # T and Hz
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
    """The bits of flags, such as ``"ACQ_IS_REVERSE"``; flags that an old version does not know are left out."""
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
    field_of_view: tuple[float, float, float] = (160.0, 160.0, 160.0),
    patient_id: str = "",
    protocol: str = "",
) -> None:
    """Write Cartesian k-space as an ISMRMRD file, as scanners' raw data come, an acquisition for each line.

    The file appears when it is complete, and the memory is that of a few coils.

    Args:
        kspace: complex and centered, coil by coil, each (readout, rows, cols) for (kx, ky, kz).
        mask: lines that are acquired, boolean (rows, cols); all by default.
        oversampling: of the readout, whose images are padded with zeros.
        multislice: cols are slices of a 2D scan rather than kz.
        order_seed: of the order of the acquisitions, at random; by default one column after the other.
        field_of_view: in mm, of readout, rows and cols; with ``multislice`` the last is the distance of slices.

    Raises:
        ImportError: if the package ismrmrd is missing.
        ValueError: if an argument is out of its range or does not fit, or the k-space is not finite.
    """
    ismrmrd = import_ismrmrd()
    xsd = ismrmrd.xsd
    check(isinstance(oversampling, int) and oversampling >= 1, "oversampling", "a whole number from 1", oversampling)
    check(len(field_of_view) == 3 and min(field_of_view) > 0, "field_of_view", "three above 0", field_of_view)
    check(order_seed is None or order_seed >= 0, "order_seed", "at least 0, or None", order_seed)
    with atomic_path(path) as temporary, tempfile.TemporaryFile(dir=Path(path).parent) as stage:
        samples, lines, shape = _stage_lines(stage, kspace, mask, oversampling, order_seed)
        header = xsd.ismrmrdHeader(
            subjectInformation=xsd.subjectInformationType(patientID=patient_id or None),
            measurementInformation=xsd.measurementInformationType(
                patientPosition=xsd.patientPositionType.FFS, protocolName=protocol or None
            ),
            acquisitionSystemInformation=xsd.acquisitionSystemInformationType(
                systemFieldStrength_T=FIELD_STRENGTH, receiverChannels=len(samples)
            ),
            experimentalConditions=xsd.experimentalConditionsType(H1resonanceFrequency_Hz=RESONANCE),
            encoding=[_describe(xsd, shape, oversampling, multislice, field_of_view)],
        )
        spacing = field_of_view[2] if multislice else None
        heads = _make_heads(ismrmrd.hdf5.acquisition_header_dtype, samples, lines, shape[2], spacing)
        with h5py.File(temporary, "w") as file:
            group = file.create_group("dataset")
            xml = xsd.ToXML(header, encoding="utf-8").encode()
            group.create_dataset("xml", (1,), dtype=h5py.special_dtype(vlen=bytes))[0] = xml
            records = ismrmrd.hdf5.acquisition_dtype
            data = group.create_dataset("data", len(lines), records, maxshape=(None,), chunks=(32,))
            for start in range(0, len(lines), SLAB):
                slab = slice(start, start + SLAB)
                data[slab] = _pack(records, heads[slab], samples[:, slab])


def _stage_lines(
    stage: Any, kspace: Iterable[np.ndarray], mask: np.ndarray | None, oversampling: int, order_seed: int | None
) -> tuple[np.ndarray, np.ndarray, tuple[int, ...]]:
    """Put the acquired lines on disk, because an acquisition has all coils, which come in turn.

    The result is the lines on disk, (coils, lines, samples), the row and column of each, and the shape of a coil.
    """
    coils = iter(kspace)
    first = np.asarray(next(coils, np.empty(0)))
    fits = np.iscomplexobj(first) and first.ndim == 3 and first.size > 0
    layout = "complex, (coils, readout, rows, cols), each at least 1"
    check(fits, "kspace", layout, f"{first.dtype} {first.shape} for a coil")
    shape, readout = first.shape, first.shape[0] * oversampling
    limit = max(readout, *shape[1:])
    check(limit <= MAX_SAMPLES, "kspace", f"of at most {MAX_SAMPLES} samples along an axis", limit)
    acquired = np.ones(shape[1:], dtype=bool) if mask is None else np.asarray(mask).astype(bool)
    check(acquired.shape == shape[1:], "mask", f"of shape {shape[1:]}", acquired.shape)
    check(bool(acquired.any()), "mask", "true somewhere", "no acquired line")
    lines = np.argwhere(acquired.T)[:, ::-1]  # one column after the other
    lines = lines if order_seed is None else np.random.default_rng(order_seed).permutation(lines)
    for count, coil in enumerate(itertools.chain([first], coils)):
        check(coil.shape == shape, "kspace", f"of the same shape {shape} for all coils", coil.shape)
        samples = coil[:, lines[:, 0], lines[:, 1]].T
        check(bool(np.isfinite(samples).all()), "kspace", "finite", f"NaN or infinite values in coil {count}")
        stage.write(np.ascontiguousarray(_oversample(samples, oversampling), dtype=np.complex64).data)
    stage.flush()
    return np.memmap(stage, np.complex64, "r", shape=(count + 1, len(lines), readout)), lines, shape


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
    xsd: Any, shape: tuple[int, ...], oversampling: int, multislice: bool, field_of_view: tuple[float, float, float]
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


def _make_heads(
    dtype: np.dtype, samples: np.ndarray, lines: np.ndarray, cols: int, spacing: float | None
) -> np.ndarray:
    """The headers of acquisitions (coils, lines, samples); with the distance of slices, cols are slices."""
    heads = np.zeros(len(lines), dtype)
    heads["version"] = 1
    heads["scan_counter"] = np.arange(len(lines))
    heads["number_of_samples"], heads["center_sample"] = samples.shape[2], samples.shape[2] // 2
    heads["available_channels"] = heads["active_channels"] = len(samples)
    for coil in range(len(samples)):
        heads["channel_mask"][:, coil // 64] |= np.uint64(1 << coil % 64)
    # readout along the body, rows from left to right, cols from front to back
    heads["read_dir"], heads["phase_dir"], heads["slice_dir"] = (0, 0, 1), (1, 0, 0), (0, 1, 0)
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


def _pack(dtype: np.dtype, heads: np.ndarray, samples: np.ndarray) -> np.ndarray:
    """Acquisitions as records, from headers (n,) and samples (coils, n, samples)."""
    records = np.empty(len(heads), dtype)
    records["head"] = heads
    lines = np.ascontiguousarray(samples.transpose(1, 0, 2)).view(np.float32)
    nothing = np.empty(0, dtype=np.float32)
    for number, line in enumerate(lines.reshape(len(records), -1)):
        records["data"][number], records["traj"][number] = line, nothing
    return records
