"""Raw data of Siemens scanners (TWIX, ``meas_*.dat``), read by twixtools and taken the way of MRD files."""

import contextlib
import ctypes
import io
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from fastmri_ufloss.checks import check
from fastmri_ufloss.convert.ismrmrd_raw import HEAD, RawScan, write_scan
from fastmri_ufloss.convert.volumes import naming_source
from fastmri_ufloss.simulation.mrd_file import flag_mask, import_ismrmrd

__all__ = ["convert_twix"]

FLAGS = {  # of MRD, by those of TWIX
    "NOISEADJSCAN": "ACQ_IS_NOISE_MEASUREMENT",
    "PATREFSCAN": "ACQ_IS_PARALLEL_CALIBRATION",
    "PATREFANDIMASCAN": "ACQ_IS_PARALLEL_CALIBRATION_AND_IMAGING",
    "REFLECT": "ACQ_IS_REVERSE",
    "PHASCOR": "ACQ_IS_PHASECORR_DATA",
    "SLICE_ACCEL_PHASCOR": "ACQ_IS_PHASECORR_DATA",
    "HPFEEDBACK": "ACQ_IS_HPFEEDBACK_DATA",
    "RTFEEDBACK": "ACQ_IS_RTFEEDBACK_DATA",
    "RETRO_DUMMYSCAN": "ACQ_IS_DUMMYSCAN_DATA",
    "REFPHASESTABSCAN": "ACQ_IS_PHASE_STABILIZATION_REFERENCE",
    "PHASESTABSCAN": "ACQ_IS_PHASE_STABILIZATION",
    "SLICE_ACCEL_REFSCAN": "ACQ_IS_SURFACECOILCORRECTIONSCAN_DATA",  # not of the image
    "CT_NORMALIZE": "ACQ_IS_SURFACECOILCORRECTIONSCAN_DATA",
}
COUNTERS = {
    "kspace_encode_step_1": "Lin",
    "kspace_encode_step_2": "Par",
    "average": "Ave",
    "slice": "Sli",
    "contrast": "Eco",
    "phase": "Phs",
    "repetition": "Rep",
    "set": "Set",
}


@naming_source
def convert_twix(
    source: Path,
    output: Path,
    *,
    dimensions: Literal["auto", "2d", "3d"] = "auto",
    echoes: int = 1,
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
    """Write the Cartesian raw data of a Siemens TWIX file as a fastMRI volume.

        image = ifft2c(kspace) of the volume = the image of the file's k-space, cropped to its field of view

    The last measurement of the file is taken, with the noise measurements of those before it. Lines, matrix and field
    of view are those of the header; where lines go beyond the header, as in files of Pulseq, the matrix is that of
    the lines and their center is the middle, with a warning. All else is as for ISMRMRD, see `convert_ismrmrd`.

    Args:
        dimensions: of the encoding; auto is 3D if there is more than one partition.
        echoes: echoes of a line that follow each other in the counter of lines, as in files of Pulseq; contrast then
            chooses one.
        contrast, phase, repetition, set_: which one, if there are several.
        average_repeats: average lines that were acquired twice without being marked as averages.
        prewhiten: whiten the coils by the noise measurements of the file, if it has any.
        noise_file: another TWIX file whose noise measurements are taken instead.
        patient_id: of the subject; that of the file is not copied.
        acquisition: fastMRI's name of the contrast, such as AXT2; by default the name of the protocol.

    Raises:
        ImportError: if the package twixtools or ismrmrd is missing.
        ValueError: if the file is broken, not Cartesian or of several images, or an argument does not fit.
    """
    check(echoes >= 1, "echoes", "at least 1", echoes)

    @contextlib.contextmanager
    def open_scan(path: Path) -> Iterator[RawScan]:
        yield _open_scan(path, echoes)

    chosen = {"contrast": contrast, "phase": phase, "repetition": repetition, "set_": set_}
    write_scan(
        open_scan,
        source,
        output,
        chosen,
        source_format="TWIX",
        dimensions=dimensions,
        average_repeats=average_repeats,
        prewhiten=prewhiten,
        noise_file=noise_file,
        patient_id=patient_id,
        acquisition=acquisition,
        max_memory=max_memory,
        attributes=attributes,
    )


class _Acquisitions:
    """Measurement blocks, read from the file when they are asked for, like the data set of an MRD file."""

    def __init__(self, blocks: list[Any]) -> None:
        self.blocks = blocks

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, slice):
            return _Acquisitions(self.blocks[key])
        if isinstance(key, str):  # "data", the only field
            return self
        return [
            np.ascontiguousarray(self.blocks[n].data, np.complex64).view(np.float32).ravel() for n in key.tolist()
        ]


def _open_scan(path: Path, echoes: int) -> RawScan:
    try:
        import twixtools
    except ImportError as error:
        raise ImportError(f"TWIX files need twixtools ({error}): pip install 'fastmri-ufloss[convert]'") from error
    try:
        quiet = io.StringIO()
        with contextlib.redirect_stdout(quiet), contextlib.redirect_stderr(quiet):
            # a name that is no text would be the number of a measurement
            scans = twixtools.read_twix(str(path), parse_data=False, parse_pmu=False, parse_geometry=False)
        for scan in scans:
            scan["mdb"] = _read_blocks(path, scan)
        scans = [scan for scan in scans if scan["mdb"]]
        header = scans[-1]["hdr"]
    except Exception as error:  # the reader raises whatever its parsing comes to
        raise ValueError(f"{path} is not a TWIX file of raw data, or it is damaged ({error!r})") from error
    blocks, dwells = [], []
    for scan in scans:
        of_noise = [block for block in scan["mdb"] if scan is scans[-1] or block.is_flag_set("NOISEADJSCAN")]
        blocks += of_noise
        dwells += [_number(scan["hdr"], "sRXSPEC.alDwellTime") / 1000] * len(of_noise)
    heads = np.zeros(len(blocks), dtype=HEAD)
    masks = {name: flag_mask(of_mrd) for name, of_mrd in FLAGS.items()}
    for head, block, dwell in zip(heads, blocks, dwells, strict=True):
        mdh = block.mdh
        for flag in block.get_active_flags():
            head["flags"] |= masks.get(flag, np.uint64(0))
        head["number_of_samples"], head["active_channels"] = mdh.SamplesInScan, mdh.UsedChannels
        head["discard_pre"], head["discard_post"] = mdh.CutOff.Pre, mdh.CutOff.Post
        head["center_sample"], head["sample_time_us"] = mdh.CenterCol, dwell
        for counter, name in COUNTERS.items():
            head[counter] = getattr(mdh.Counter, name)
    is_image = (heads["flags"] & flag_mask("ACQ_IS_NOISE_MEASUREMENT")) == 0
    if echoes > 1:
        heads["contrast"][is_image] = heads["kspace_encode_step_1"][is_image] % echoes
        heads["kspace_encode_step_1"][is_image] //= echoes
    check(bool(is_image.any()), str(path), "a scan of an image", "one of noise alone")
    first = blocks[int(np.flatnonzero(is_image)[0])].mdh
    centers = int(first.CenterLin), int(first.CenterPar)
    return RawScan(path, _make_header(path, header, heads[is_image], centers), heads, _Acquisitions(blocks))


def _read_blocks(path: Path, scan: Mapping[str, Any]) -> list[Any]:
    """The measurement blocks of a scan, which `twixtools.read_twix` would search for ever behind one of length 0."""
    from twixtools.mdb import Mdb

    entry = scan.get("raidfile_hdr")  # of VD and VE
    start, size = (0, path.stat().st_size) if entry is None else (int(entry["off_"]), int(entry["len_"]))
    position, blocks = start + len(scan["hdr_str"]), []
    with open(path, "rb") as file:
        while position + 128 < start + size:
            file.seek(position)
            block = Mdb(file, entry is not None)
            if block.is_flag_set("ACQEND"):
                break
            length = int(block.dma_len)
            check(
                length >= ctypes.sizeof(block.mdh), f"the block at byte {position}", "longer than its header", length
            )
            if not block.is_flag_set("SYNCDATA"):
                blocks.append(block)
            position += length
    return blocks


def _make_header(path: Path, header: Mapping[str, Any], heads: np.ndarray, centers: tuple[int, int]) -> Any:
    """What the header of an MRD file would say."""
    xsd = import_ismrmrd().xsd
    samples = int(np.bincount(heads["number_of_samples"]).argmax())
    lines, partitions = (int(heads[f"kspace_encode_step_{axis}"].max()) + 1 for axis in (1, 2))
    factor = _number(header, "flReadoutOSFactor", default=1.0)
    fields = [_number(header, f"sSliceArray.asSlice.0.{name}") for name in ("dReadoutFOV", "dPhaseFOV", "dThickness")]
    for name, value in zip(("dReadoutFOV", "dPhaseFOV", "dThickness"), fields, strict=True):
        check(value > 0, f"{path}: {name} of the header", "above 0", value)
    encoded, matrix, starts = [fields[0] * factor], [samples], [samples // 2]
    for size, key, oversampling, center, field, axis in (
        (lines, "iPEFTLength", "dPhaseOversamplingForDialog", centers[0], fields[1], "lines"),
        (partitions, "i3DFTLength", "dSliceOversamplingForDialog", centers[1], fields[2], "partitions"),
    ):
        full = int(_number(header, key, default=0.0)) if size > 1 else 1
        if size > full:
            text = f"{path}: {size} {axis} go beyond the header, which has {full}: they are centered"
            warnings.warn(text, stacklevel=2)
            full, center, over = size, size // 2, 0.0
        else:
            over = _number(header, oversampling, default=0.0)
            center = center or full // 2
        encoded.append(field * (1 + over))
        matrix.append(full)
        starts.append(center)
    limits = {
        f"kspace_encoding_step_{axis}": xsd.limitType(minimum=0, maximum=matrix[axis] - 1, center=starts[axis])
        for axis in (0, 1, 2)
    }
    spaces = {
        name: xsd.encodingSpaceType(
            matrixSize=xsd.matrixSizeType(**dict(zip("xyz", matrix, strict=True))),
            fieldOfView_mm=xsd.fieldOfViewMm(**dict(zip("xyz", of, strict=True))),
        )
        for name, of in (("encodedSpace", encoded), ("reconSpace", fields))
    }
    radial = _number(header, "sKSpace.ucTrajectory", default=1.0) not in (1.0, 0.0)
    trajectory = xsd.trajectoryType.OTHER if radial else xsd.trajectoryType.CARTESIAN
    encoding = xsd.encodingType(**spaces, encodingLimits=xsd.encodingLimitsType(**limits), trajectory=trajectory)
    return xsd.ismrmrdHeader(
        measurementInformation=xsd.measurementInformationType(
            patientPosition=xsd.patientPositionType.HFS, protocolName=_text(header, "tProtocolName")
        ),
        acquisitionSystemInformation=xsd.acquisitionSystemInformationType(
            systemVendor="SIEMENS",
            systemModel=_text(header, "ManufacturersModelName"),
            systemFieldStrength_T=_number(header, "sProtConsistencyInfo.flNominalB0", default=0.0) or None,
            relativeReceiverNoiseBandwidth=_number(header, "ReceiverNoiseEquivalentBandwidth", default=1.0),
        ),
        experimentalConditions=xsd.experimentalConditionsType(
            H1resonanceFrequency_Hz=int(_number(header, "lFrequency", default=0.0))
        ),
        encoding=[encoding],
    )


def _find(header: Mapping[str, Any], name: str) -> Any:
    """A field of a header, with dots between the parts of its name; None if it is nowhere."""
    for section in ("MeasYaps", "Phoenix", "Meas", "Config", "Dicom"):
        value: Any = header.get(section)
        for part in name.split("."):
            if isinstance(value, Mapping):
                value = value.get(part)
            elif isinstance(value, list) and part.isdecimal() and int(part) < len(value):
                value = value[int(part)]
            else:
                value = None
        if value not in (None, "", []):
            return value[0] if isinstance(value, list) else value
    return None


def _number(header: Mapping[str, Any], name: str, *, default: float | None = None) -> float:
    value = _find(header, name)
    if value is None and default is not None:
        return default
    try:
        return float(value)
    except (TypeError, ValueError):
        raise ValueError(f"the header must have a number {name}, got {value!r}") from None


def _text(header: Mapping[str, Any], name: str) -> str | None:
    value = _find(header, name)
    return None if value is None else str(value)
