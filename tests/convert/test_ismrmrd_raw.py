"""Converted raw data have the images that were put into them; what cannot be converted is refused by name.

Files are written with ismrmrd, k-space is made by matrices of the centered transform.
"""

import dataclasses
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fastmri
import h5py
import numpy as np
import pytest
import torch
from fastmri.data import SliceDataset

ismrmrd = pytest.importorskip("ismrmrd")
from ismrmrd import xsd  # noqa: E402

from fastmri_ufloss.convert import ismrmrd_raw  # noqa: E402
from fastmri_ufloss.convert.ismrmrd_raw import convert_ismrmrd  # noqa: E402
from fastmri_ufloss.data.index import read_metadata  # noqa: E402

COILS = 3
NOISE, REVERSE = ismrmrd.ACQ_IS_NOISE_MEASUREMENT, ismrmrd.ACQ_IS_REVERSE
CALIBRATION = ismrmrd.ACQ_IS_PARALLEL_CALIBRATION
BOTH = ismrmrd.ACQ_IS_PARALLEL_CALIBRATION_AND_IMAGING


@dataclasses.dataclass
class Line:
    """An acquisition: samples (coils, samples), counters, flags and fields of the head."""

    data: np.ndarray
    idx: dict[str, int]
    flags: tuple[int, ...] = ()
    head: dict[str, Any] = dataclasses.field(default_factory=dict)


def dft(size: int) -> np.ndarray:
    places = np.arange(size) - size // 2
    return np.exp(-2j * np.pi * np.outer(places, places) / size) / np.sqrt(size)


def randn(*shape: int, seed: int = 0) -> np.ndarray:
    values = np.random.default_rng(seed).standard_normal((2, *shape))
    return values[0] + 1j * values[1]


def coil_images(count: int, *shape: int, coils: int = COILS) -> np.ndarray:
    """Images (count, coils, ...) without any symmetry: a random one in random coils."""
    return randn(count, 1, *shape) * randn(1, coils, *shape, seed=1)


def make_header(encoded: tuple[int, int, int], recon: tuple[int, int, int] | None = None, **limits: int) -> Any:
    """Of voxels of 2 x 1.5 x 3 mm; ``limits`` are the centers of the steps."""
    centers = {"1": encoded[1] // 2, "2": encoded[2] // 2} | {name[-1]: value for name, value in limits.items()}
    spaces = [
        xsd.encodingSpaceType(
            matrixSize=xsd.matrixSizeType(x=x, y=y, z=z),
            fieldOfView_mm=xsd.fieldOfViewMm(x=2.0 * x, y=1.5 * y, z=3.0 * z),
        )
        for x, y, z in (encoded, recon or encoded)
    ]
    steps = {f"kspace_encoding_step_{one}": xsd.limitType(center=center) for one, center in centers.items()}
    return xsd.ismrmrdHeader(
        subjectInformation=xsd.subjectInformationType(patientName="Jane Doe", patientID="secret-id"),
        studyInformation=xsd.studyInformationType(referringPhysicianName="Dr. Who"),
        measurementInformation=xsd.measurementInformationType(
            patientPosition=xsd.patientPositionType.HFS, protocolName="t2_tse", measurementID="secret-number"
        ),
        acquisitionSystemInformation=xsd.acquisitionSystemInformationType(
            systemVendor="Maker", systemModel="One", systemFieldStrength_T=2.9, stationName="secret-room"
        ),
        experimentalConditions=xsd.experimentalConditionsType(H1resonanceFrequency_Hz=123000000),
        encoding=[
            xsd.encodingType(
                encodedSpace=spaces[0],
                reconSpace=spaces[1],
                encodingLimits=xsd.encodingLimitsType(**steps),
                trajectory=xsd.trajectoryType.CARTESIAN,
            )
        ],
    )


def write_file(path: Path, header: Any, lines: list[Line]) -> Path:
    with ismrmrd.Dataset(str(path), mode="w") as dataset:
        dataset.write_xml_header((header if isinstance(header, str) else xsd.ToXML(header)).encode())
        for line in lines:
            data = np.ascontiguousarray(line.data, dtype=np.complex64)
            acquisition = ismrmrd.Acquisition.from_array(data, center_sample=data.shape[1] // 2)
            for name, value in line.head.items():
                setattr(acquisition, name, value)
            for name, value in line.idx.items():
                setattr(acquisition.idx, name, value)
            for flag in line.flags:
                acquisition.set_flag(flag)
            dataset.append_acquisition(acquisition)
    return path


def lines_2d(images: np.ndarray, steps: Any = None, **idx: int) -> list[Line]:
    """Acquisitions of images (slices, coils, x, y)."""
    x, y = (dft(size) for size in images.shape[2:])
    kspace = x @ images @ y.T
    columns = range(images.shape[3]) if steps is None else steps
    return [
        Line(one[:, :, step], {"slice": number, "kspace_encode_step_1": int(step), **idx})
        for number, one in enumerate(kspace)
        for step in columns
    ]


def lines_3d(images: np.ndarray, mask: np.ndarray | None = None) -> list[Line]:
    """Acquisitions of images (coils, x, y, z)."""
    kspace = np.einsum("cxyz,kx,ly,mz->cklm", images, *(dft(size) for size in images.shape[1:]), optimize=True)
    points = np.argwhere(np.ones(images.shape[2:]) if mask is None else mask).tolist()
    return [Line(kspace[:, :, y, z], {"kspace_encode_step_1": y, "kspace_encode_step_2": z}) for y, z in points]


def images_of(path: Path) -> np.ndarray:
    with h5py.File(path) as file:
        kspace = torch.from_numpy(file["kspace"][()])
    return torch.view_as_complex(fastmri.ifft2c(torch.view_as_real(kspace))).numpy()


def read(path: Path, name: str) -> Any:
    with h5py.File(path) as file:
        return file[name][()] if name in file else None


def middle(images: np.ndarray, *crops: int) -> np.ndarray:
    """The center of the last axes."""
    starts = [size // 2 - crop // 2 for size, crop in zip(images.shape[-len(crops) :], crops, strict=True)]
    return images[(..., *(slice(start, start + crop) for start, crop in zip(starts, crops, strict=True)))]


def covariance_of(kspace: np.ndarray) -> np.ndarray:
    samples = np.moveaxis(kspace, 1, 0).reshape(kspace.shape[1], -1)
    return samples @ samples.conj().T / samples.shape[1]


def assert_close(found: np.ndarray, truth: np.ndarray) -> None:
    assert found.shape == truth.shape
    np.testing.assert_allclose(found, truth, atol=3e-6 * np.abs(truth).max())


@pytest.fixture(autouse=True)
def small_slabs(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Files of several slabs."""
    monkeypatch.setattr(ismrmrd_raw, "SLAB_BYTES", 11 * 8 * COILS * 24)
    monkeypatch.setattr(ismrmrd_raw, "SLAB_HEADS", 7)
    return


def convert(tmp_path: Path, header: Any, lines: list[Line], **options: Any) -> Path:
    output = tmp_path / "volumes" / "one.h5"
    convert_ismrmrd(write_file(tmp_path / "raw.mrd", header, lines), output, **options)
    return output


@pytest.mark.parametrize(
    ("encoded", "recon"),
    [((24, 14), (12, 14)), ((22, 15), (11, 15)), ((21, 9), (13, 9)), ((12, 15), (12, 15)), ((24, 16), (12, 10))],
)
def test_slices_have_their_images(tmp_path: Path, encoded: tuple[int, int], recon: tuple[int, int]) -> None:
    truth = coil_images(2, *encoded)
    lines = [*lines_2d(truth)]
    np.random.default_rng(0).shuffle(lines)
    output = convert(tmp_path, make_header((*encoded, 1), (*recon, 1)), lines)
    assert_close(images_of(output), middle(truth, recon[0], encoded[1]))
    rss = np.sqrt((np.abs(middle(truth, *recon)) ** 2).sum(axis=1))
    np.testing.assert_allclose(read(output, "reconstruction_rss"), rss, rtol=1e-4, atol=1e-5)
    facts = read_metadata(output, "multicoil")
    assert (facts["padding_left"], facts["padding_right"]) == (0, encoded[1])
    assert facts["encoding_size"] == [recon[0], encoded[1], 1] and facts["recon_size"] == [*recon, 1]
    assert facts["sampling"] is None and read(output, "mask") is None


def test_volume_keeps_facts_but_not_the_subject(tmp_path: Path) -> None:
    lines = lines_2d(coil_images(2, 12, 10, coils=1))
    output = convert(tmp_path, make_header((12, 10, 1)), lines, attributes={"conversion": "x"})
    with h5py.File(output) as file:
        facts, header = dict(file.attrs), file["source_header"][()]
        assert file["kspace"].shape == (2, 1, 12, 10) and file["kspace"].dtype == np.complex64
        fields = file["ismrmrd_header"][()].decode()
    assert facts["acquisition"] == facts["protocol_name"] == "t2_tse" and facts["patient_id"] == ""
    assert (facts["system_vendor"], facts["system_model"], facts["conversion"]) == ("Maker", "One", "x")
    assert facts["field_strength"] == 2.9 and not facts["prewhitened"]
    kept = xsd.CreateFromDocument(header)
    assert kept.encoding[0].encodedSpace.matrixSize.x == 12 and kept.subjectInformation is None
    for secret in (b"Doe", b"secret", b"Who"):
        assert secret not in header and secret not in output.read_bytes()
    assert "<x>24.0</x><y>15.0</y><z>3.0</z>" in fields
    named = convert(tmp_path, make_header((12, 10, 1)), lines, acquisition="AXT2", patient_id="7")
    with h5py.File(named) as file:
        assert (file.attrs["acquisition"], file.attrs["patient_id"]) == ("AXT2", "7")


def test_fastmri_reads_the_volume(tmp_path: Path) -> None:
    output = convert(tmp_path, make_header((24, 14, 1), (12, 14, 1)), lines_2d(coil_images(3, 24, 14)))
    dataset = SliceDataset(output.parent, "multicoil", use_dataset_cache=False)
    kspace, mask, target, attributes, name, index = dataset[2]
    assert len(dataset) == 3 and kspace.shape == (COILS, 12, 14) and target.shape == (12, 14)
    assert mask is None and attributes["max"] > 0 and (name, index) == ("one.h5", 2)


@pytest.mark.parametrize(("first", "last"), [(4, 15), (0, 11), (3, 12)])
def test_partial_fourier_is_padding(tmp_path: Path, first: int, last: int) -> None:
    """Steps count from 0, the center of the limits says where k-space has its own."""
    truth = coil_images(2, 12, 15)
    lines = lines_2d(truth, range(first, last))
    for line in lines:
        line.idx["kspace_encode_step_1"] -= first
    output = convert(tmp_path, make_header((12, 15, 1), step_1=7 - first), lines)
    kspace = truth @ dft(15).T
    kspace[..., :first] = kspace[..., last:] = 0
    assert_close(images_of(output), kspace @ dft(15).conj())
    facts = read_metadata(output, "multicoil")
    assert (facts["padding_left"], facts["padding_right"]) == (first, last)
    assert read(output, "mask") is None and read(output, "reconstruction_rss") is not None


@pytest.mark.parametrize("discard", [(0, 0), (3, 2)])
@pytest.mark.parametrize("reverse", [False, True])
def test_partial_echo_is_placed_by_its_center(tmp_path: Path, discard: tuple[int, int], reverse: bool) -> None:
    truth = coil_images(1, 24, 10)
    lines = lines_2d(truth)
    for line in lines:
        kept = line.data[:, 7:]  # k = 0 is at 12 of 24
        rubbish = [np.full((COILS, count), 1e3) for count in (discard[::-1] if reverse else discard)]
        data = np.concatenate([rubbish[0], kept, rubbish[1]], axis=1)
        line.data = data[:, ::-1] if reverse else data
        center = 12 - 7 + rubbish[0].shape[1]
        line.head = {"center_sample": center, "discard_pre": discard[0], "discard_post": discard[1]}
        line.flags = (REVERSE,) if reverse else ()
    output = convert(tmp_path, make_header((24, 10, 1), (12, 10, 1)), lines)
    kspace = dft(24) @ truth
    kspace[:, :, :7] = 0
    assert_close(images_of(output), middle(dft(24).conj().T @ kspace, 12, 10))


def test_center_that_is_not_set_is_that_of_a_full_readout(tmp_path: Path) -> None:
    truth = coil_images(1, 12, 10)
    lines = lines_2d(truth)
    for line in lines:
        line.head = {"center_sample": 0}
    assert_close(images_of(convert(tmp_path, make_header((12, 10, 1)), lines)), truth)


def test_averages_are_averaged(tmp_path: Path) -> None:
    truth = coil_images(2, 12, 10)
    lines = lines_2d(truth, average=0) + lines_2d(3 * truth, average=1) + lines_2d(5 * truth, range(4, 6), average=2)
    np.random.default_rng(1).shuffle(lines)
    expected = 2 * truth @ dft(10).T
    expected[..., 4:6] *= 1.5
    output = convert(tmp_path, make_header((12, 10, 1)), lines)
    assert_close(images_of(output), expected @ dft(10).conj())
    for line in lines:
        line.idx["average"] = 0
    with pytest.raises(ValueError, match=r"raw.mrd: 24 repeated lines: .* of slice 0, .* set average_repeats"):
        convert(tmp_path, make_header((12, 10, 1)), lines)
    assert_close(
        images_of(convert(tmp_path, make_header((12, 10, 1)), lines, average_repeats=True)), expected @ dft(10).conj()
    )


def test_undersampled_lines_are_a_mask(tmp_path: Path) -> None:
    truth = coil_images(2, 24, 17)
    steps = sorted({*range(0, 15, 2), *range(7, 11)})
    output = convert(tmp_path, make_header((24, 17, 1), (12, 17, 1)), lines_2d(truth, steps))
    mask = np.isin(np.arange(17), steps)
    np.testing.assert_array_equal(read(output, "mask"), mask)
    assert_close(images_of(output), middle(truth, 12, 17) @ dft(17).T * mask @ dft(17).conj())
    assert read(output, "reconstruction_rss") is None
    facts = read_metadata(output, "multicoil")
    assert (facts["padding_left"], facts["padding_right"], facts["sampling"]) == (0, 15, "columns")


@pytest.mark.parametrize("mode", [None, "embedded", "separate"])
def test_calibration_lines_fill_gaps_unless_they_are_separate(tmp_path: Path, mode: str | None) -> None:
    truth = coil_images(2, 12, 16)
    imaging, calibration = lines_2d(truth, range(0, 16, 2)), lines_2d(truth, range(6, 11))
    for line in calibration:
        line.flags = (CALIBRATION,)
        line.data = line.data if line.idx["kspace_encode_step_1"] % 2 else 100 * line.data  # the image has this line
    both = [line for line in imaging if line.idx["kspace_encode_step_1"] == 8]
    for line in both:
        line.flags = (CALIBRATION, BOTH)
    header = make_header((12, 16, 1))
    if mode is not None:
        header.encoding[0].parallelImaging = xsd.parallelImagingType(
            accelerationFactor=xsd.accelerationFactorType(kspace_encoding_step_1=2, kspace_encoding_step_2=1),
            calibrationMode=xsd.calibrationModeType(mode),
        )
    output = convert(tmp_path, header, calibration + imaging)
    mask = np.isin(np.arange(16), [*range(0, 16, 2), *(() if mode == "separate" else (7, 9))])
    np.testing.assert_array_equal(read(output, "mask"), mask)
    assert_close(images_of(output), truth @ dft(16).T * mask @ dft(16).conj())


@pytest.mark.parametrize("kind", ["size", "encoding"])
def test_calibration_of_another_kind_is_skipped(tmp_path: Path, kind: str) -> None:
    truth = coil_images(1, 12, 16)
    step, head = (2, {}) if kind == "size" else (1, {"encoding_space_ref": 1})
    other = [Line(line.data[:, ::step], line.idx, (CALIBRATION,), head) for line in lines_2d(truth, range(6, 11))]
    output = convert(tmp_path, make_header((12, 16, 1)), other + lines_2d(truth, range(0, 16, 2)))
    np.testing.assert_array_equal(read(output, "mask"), np.arange(16) % 2 == 0)


@pytest.mark.parametrize("encoded", [(24, 10, 8), (13, 9, 14), (12, 7, 5)])
def test_positions_of_the_readout_are_slices_in_3d(tmp_path: Path, encoded: tuple[int, int, int]) -> None:
    truth = coil_images(1, *encoded)[0]
    recon = (encoded[0] // 2, encoded[1], encoded[2] - 2)
    lines = lines_3d(truth)
    np.random.default_rng(0).shuffle(lines)
    output = convert(tmp_path, make_header(encoded, recon), lines)
    expected = np.moveaxis(truth, 1, 0)
    start = encoded[0] // 2 - recon[0] // 2
    expected = expected[start : start + recon[0]]
    assert_close(images_of(output), expected)
    assert read(output, "mask") is None and read(output, "reconstruction_rss").shape == recon
    assert "<x>" + str(1.5 * encoded[1]) in read(output, "ismrmrd_header").decode()
    assert read_metadata(output, "multicoil")["encoding_size"] == [*encoded[1:], 1]


def ellipse(rows: int, cols: int) -> np.ndarray:
    y, x = np.ogrid[:rows, :cols]
    return ((y - rows // 2) / (rows / 2)) ** 2 + ((x - cols // 2) / (cols / 2)) ** 2 <= 1


def test_corners_and_borders_are_no_undersampling(tmp_path: Path) -> None:
    truth = coil_images(1, 12, 14, 11)[0]
    mask = ellipse(14, 11)
    mask[:, :3] = False
    output = convert(tmp_path, make_header((12, 14, 11)), lines_3d(truth, mask))
    expected = np.moveaxis(dft(14) @ truth @ dft(11).T * mask, 1, 0)
    assert_close(images_of(output), dft(14).conj().T @ expected @ dft(11).conj())
    facts = read_metadata(output, "multicoil")
    assert (facts["padding_left"], facts["padding_right"], facts["sampling"]) == (3, 11, None)
    assert read(output, "mask") is None and read(output, "reconstruction_rss") is not None


def test_undersampled_points_are_a_mask(tmp_path: Path) -> None:
    truth = coil_images(1, 12, 14, 11)[0]
    mask = ellipse(14, 11) & (np.random.default_rng(0).random((14, 11)) < 0.5)
    mask[5:9, 3:8] = True
    output = convert(tmp_path, make_header((12, 14, 11)), lines_3d(truth, mask))
    np.testing.assert_array_equal(read(output, "mask"), mask)
    expected = np.moveaxis(dft(14) @ truth @ dft(11).T * mask, 1, 0)
    assert_close(images_of(output), dft(14).conj().T @ expected @ dft(11).conj())
    assert read(output, "reconstruction_rss") is None


@pytest.mark.parametrize("is_3d", [False, True])
def test_little_memory_gives_the_same_volume(tmp_path: Path, is_3d: bool) -> None:
    if is_3d:
        header, lines = make_header((24, 9, 8), (19, 9, 8)), lines_3d(coil_images(1, 24, 9, 8)[0])
    else:
        header, lines = make_header((24, 9, 1), (12, 9, 1)), lines_2d(coil_images(5, 24, 9))
    np.random.default_rng(0).shuffle(lines)
    lines = [*lines, Line(randn(COILS, 500, seed=5), {}, (NOISE,))]
    names = ("kspace", "reconstruction_rss")
    output = convert(tmp_path, header, lines)
    many = [read(output, name) for name in names]
    passes = []
    original = ismrmrd_raw.RawScan.read_slabs

    def read_slabs(scan: Any, numbers: np.ndarray, *wanted: np.ndarray) -> Any:
        passes.extend(wanted)  # of the image; noise has none
        return original(scan, numbers, *wanted)

    for max_memory in (1, 8 * COILS * 9 * 12 * 2):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(ismrmrd_raw.RawScan, "read_slabs", read_slabs)
            output = convert(tmp_path, header, lines, max_memory=max_memory)
        for one, name in zip(many, names, strict=True):
            np.testing.assert_array_equal(read(output, name), one)
    slices = len(many[0])
    assert slices < len(passes) < 2 * slices  # the first volume took a pass for each slice, the second fewer


@pytest.mark.parametrize("is_3d", [False, True])
def test_noise_becomes_white(tmp_path: Path, is_3d: bool) -> None:
    """Of the image too, whose dwell time is shorter: it has more noise than the scan of noise."""
    mixing, size = randn(COILS, COILS, seed=7), (300, 12, 10 if is_3d else 1)
    header = make_header(size)
    header.acquisitionSystemInformation.relativeReceiverNoiseBandwidth = 0.8
    lines = lines_3d(np.zeros((COILS, *size))) if is_3d else lines_2d(np.zeros((10, COILS, *size[:2])))
    ratio = 0.8 * 2.0 / 5.0
    for number, line in enumerate(lines):
        line.data = mixing @ randn(COILS, 300, seed=number + 10) / np.sqrt(2 * ratio)
        line.head = {"sample_time_us": 2.0}
    noise = [
        Line(mixing @ randn(COILS, 8000 * n, seed=8 + n) / np.sqrt(2), {}, (NOISE,), {"sample_time_us": 5.0})
        for n in (1, 2)
    ]
    output = convert(tmp_path, header, [noise[0], *lines, noise[1]])
    whitened = read(output, "kspace")
    np.testing.assert_allclose(covariance_of(whitened), np.eye(COILS), atol=0.04)
    plain, truth = tmp_path / "plain.h5", mixing @ mixing.conj().T / ratio
    convert_ismrmrd(tmp_path / "raw.mrd", plain, prewhiten=False)
    np.testing.assert_allclose(covariance_of(read(plain, "kspace")), truth, atol=0.04 * np.abs(truth).max())
    with h5py.File(output) as first, h5py.File(plain) as second:
        assert first.attrs["prewhitened"] and not second.attrs["prewhitened"]
    # the same of another file, instead of the one in this file
    other = write_file(tmp_path / "noise.mrd", header, noise)
    with ismrmrd.Dataset(str(tmp_path / "raw.mrd")) as dataset:
        dataset.write_acquisition(dataset.read_acquisition(len(lines) + 1), 0)
    convert_ismrmrd(tmp_path / "raw.mrd", plain, noise_file=other)
    np.testing.assert_array_equal(read(plain, "kspace"), whitened)


def test_bad_noise_is_refused(tmp_path: Path) -> None:
    header, lines = make_header((12, 10, 1)), lines_2d(coil_images(1, 12, 10))
    with pytest.raises(ValueError, match=r"noise.mrd must have noise measurements"):
        convert(tmp_path, header, lines, noise_file=write_file(tmp_path / "noise.mrd", header, lines))
    wrong = Line(randn(2, 500), {}, (NOISE,))
    with pytest.raises(
        ValueError, match=r"raw.mrd: noise measurements.*: there must be the 3 coils .* got 2 in acquisition 10"
    ):
        convert(tmp_path, header, [*lines, wrong])
    silent = Line(np.zeros((COILS, 500)), {}, (NOISE,))
    with pytest.raises(
        ValueError, match=r"raw.mrd: noise .*left out if prewhiten is False: .* coils without noise: \[0, 1, 2\]"
    ):
        convert(tmp_path, header, [*lines, silent])
    assert convert(tmp_path, header, [*lines, silent], prewhiten=False).is_file()
    with pytest.raises(ValueError, match="noise_file must be left out without prewhiten"):
        convert(tmp_path, header, lines, noise_file=tmp_path / "x.mrd", prewhiten=False)


def test_helper_acquisitions_are_skipped(tmp_path: Path) -> None:
    truth = coil_images(1, 12, 10)
    names = ("NAVIGATION_DATA", "PHASECORR_DATA", "HPFEEDBACK_DATA", "DUMMYSCAN_DATA", "RTFEEDBACK_DATA")
    names = (*names, "SURFACECOILCORRECTIONSCAN_DATA", "PHASE_STABILIZATION", "PHASE_STABILIZATION_REFERENCE")
    flags = [getattr(ismrmrd, f"ACQ_IS_{name}") for name in names]
    others = [Line(randn(2, 7), {"contrast": 3, "kspace_encode_step_1": 99}, (flag,)) for flag in flags]
    lines = lines_2d(truth)
    assert_close(images_of(convert(tmp_path, make_header((12, 10, 1)), others[:5] + lines + others[5:])), truth)


@pytest.mark.parametrize("name", ["contrast", "repetition", "phase", "set"])
def test_one_of_several_images_is_chosen(tmp_path: Path, name: str) -> None:
    option = "set_" if name == "set" else name
    truth, header = coil_images(1, 12, 10), make_header((12, 10, 1))
    lines = lines_2d(truth, **{name: 0}) + lines_2d(2 * truth, **{name: 3})
    with pytest.raises(
        ValueError,
        match=rf"raw.mrd: {name} must be the same .*, got 0 in acquisition 0, 3 in .*: choose one by {option}=",
    ):
        convert(tmp_path, header, lines)
    with pytest.raises(ValueError, match=rf"raw.mrd: {option} must be one of those in the file, 0, 3, got 1"):
        convert(tmp_path, header, lines, **{option: 1})
    assert_close(images_of(convert(tmp_path, header, lines, **{option: 3})), 2 * truth)


def test_dimensions_can_be_set(tmp_path: Path) -> None:
    truth = coil_images(4, 12, 10)
    header, lines = make_header((12, 10, 4)), lines_2d(truth)  # some writers count slices as z
    with pytest.raises(
        ValueError, match=r"slice must be the same .*, got 0 in .*, 3 in acquisition 30: .* or choose dimensions '2d'"
    ):
        convert(tmp_path, header, lines)
    assert_close(images_of(convert(tmp_path, header, lines, dimensions="2d")), truth)
    volume = coil_images(1, 12, 10, 4)[0]
    with pytest.raises(
        ValueError, match=r"kspace_encode_step_2 must be the same .*, got 0 in .* or choose dimensions '3d'"
    ):
        convert(tmp_path, header, lines_3d(volume), dimensions="2d")
    output = convert(tmp_path, header, lines_3d(volume), dimensions="3d")
    assert_close(images_of(output), np.moveaxis(volume, 1, 0))
    with pytest.raises(ValueError, match=r"encodedSpace.matrixSize.z must be above 1 for dimensions '3d', got 1"):
        convert(tmp_path, make_header((12, 10, 1)), lines, dimensions="3d")


def broken_lines(case: str, lines: list[Line]) -> list[Line]:
    if case == "slice lacks lines":
        return [line for line in lines if line.idx["slice"] != 1 or line.idx["kspace_encode_step_1"] not in (2, 7)]
    if case == "no slice":
        return [line for line in lines if line.idx["slice"] != 1]
    if case == "samples":
        lines[4].data = lines[4].data[:, :6]
    if case == "coils":
        lines[4].data = lines[4].data[:2]
    if case == "repeated":
        lines.append(lines[4])
    if case == "outside":
        lines[4].idx["kspace_encode_step_1"] = 10
    if case == "center":
        lines[4].head = {"center_sample": 3}
    if case == "not finite":
        lines[17].data = lines[17].data * np.array([[1], [np.nan], [1]])
    if case == "encodings":
        lines[4].head = {"encoding_space_ref": 1}
    if case == "no such encoding":
        for line in lines:
            line.head = {"encoding_space_ref": 1}
    if case == "noise only":
        for line in lines:
            line.flags = (NOISE,)
    if case == "off center":
        return [line for line in lines if line.idx["kspace_encode_step_1"] > 6]
    return [] if case == "empty" else lines


@pytest.mark.parametrize(
    ("case", "message"),
    [
        (
            "slice lacks lines",
            r"missing lines: slice 1 has no lines \[2, 7\] .*2 in all.*, which other slices have",
        ),
        ("no slice", r"missing lines: slice 1 has no lines \[0, 1, .*10 in all.*, which other slices have"),
        ("samples", "number_of_samples must be the same .*, got 6 in acquisition 4, 12 in acquisition 0"),
        ("coils", "active_channels must be the same .*, got 2 in acquisition 4, 3 in acquisition 0"),
        ("repeated", "1 repeated lines: acquisitions 4 and 30 are both of slice 0, kspace_encode_step_1 4"),
        ("outside", "kspace_encode_step_1 must be from 0 to 9, .* got 10 in acquisition 4: correct"),
        ("center", "readout must be in the encoded matrix of 12 samples, got 12 samples, center_sample 3"),
        ("not finite", "acquisition 17 has NaN or infinite values"),
        ("encodings", "encoding_space_ref must be the same .*, got 0 in acquisition 0, 1 in acquisition 4"),
        ("no such encoding", "encoding_space_ref must be below the number of encodings in the header, 1, got 1"),
        ("noise only", "some acquisitions must be of an image, got 0 of calibration and 30 of noise"),
        ("off center", "columns from 7 to 10 were sampled, which leave out the cent(er|re) of 10"),
        ("empty", "there must be acquisitions, a data set 'data', in the group 'dataset'"),
    ],
)
def test_inconsistent_acquisitions_are_refused(tmp_path: Path, case: str, message: str) -> None:
    lines = broken_lines(case, lines_2d(coil_images(3, 12, 10)))
    with pytest.raises(ValueError, match=f"raw.mrd.*{message}"):
        convert(tmp_path, make_header((12, 10, 1)), lines)
    assert not list((tmp_path / "volumes").glob("*"))  # nothing is left


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("<trajectory>cartesian", "<trajectory>radial", "trajectory must be cartesian, got radial: grid the data"),
        ("<trajectory>cartesian", "<trajectory>epi", "trajectory must be cartesian, got epi"),
        (
            "kspace_encoding_step_1>",
            "phase>",
            "encodingLimits.kspace_encoding_step_1.center of the header must be a number",
        ),
        ("reconSpace>", "otherSpace>", "header is broken, or fields are missing .*otherSpace"),
        ("<x>24.0</x>", "<x>0</x>", "encodedSpace.fieldOfView_mm of the header must be above 0, got .0.0, 15.0, 3.0"),
        ("</ismrmrdHeader>", "", "header is broken"),
    ],
)
def test_headers_that_do_not_do_are_refused(tmp_path: Path, old: str, new: str, message: str) -> None:
    text = xsd.ToXML(make_header((12, 10, 1)))
    assert old in text
    with pytest.raises(ValueError, match=f"raw.mrd.*{message}"):
        convert(tmp_path, text.replace(old, new), lines_2d(coil_images(1, 12, 10)))


def test_missing_fields_are_named(tmp_path: Path) -> None:
    text = xsd.ToXML(make_header((12, 10, 1)))
    start, stop = text.index("<reconSpace>"), text.index("</reconSpace>") + len("</reconSpace>")
    with pytest.raises(ValueError, match=r"raw.mrd: the header .*reconSpace"):
        convert(tmp_path, text[:start] + text[stop:], lines_2d(coil_images(1, 12, 10)))


def test_other_files_are_refused(tmp_path: Path) -> None:
    source, output = tmp_path / "raw.mrd", tmp_path / "one.h5"
    with pytest.raises(ValueError, match=r"raw.mrd is not an HDF5 file, .*No such file"):
        convert_ismrmrd(source, output)
    source.write_text("no HDF5")
    with pytest.raises(ValueError, match=r"raw.mrd is not an HDF5 file, or it is truncated"):
        convert_ismrmrd(source, output)
    with h5py.File(source, "w") as file:
        file["kspace"] = np.zeros(3)
    with pytest.raises(
        ValueError, match=r"raw.mrd: there must be acquisitions, .*got kspace without: is it an ISMRMRD"
    ):
        convert_ismrmrd(source, output)
    write_file(source, make_header((12, 10, 1)), lines_2d(coil_images(1, 12, 10)))
    source.write_bytes(source.read_bytes()[:-2000])
    with pytest.raises(ValueError, match=r"raw.mrd is not an HDF5 file, or it is truncated"):
        convert_ismrmrd(source, output)
    assert not output.exists()


def test_group_may_have_another_name_if_it_is_the_only_one(tmp_path: Path) -> None:
    truth = coil_images(1, 12, 10)
    source = write_file(tmp_path / "raw.h5", make_header((12, 10, 1)), lines_2d(truth))
    with h5py.File(source, "a") as file:
        file.move("dataset", "scan")
    convert_ismrmrd(source, tmp_path / "one.h5")
    assert_close(images_of(tmp_path / "one.h5"), truth)
    with h5py.File(source, "a") as file:
        file.copy("scan", "other")
    with pytest.raises(ValueError, match="in a single other one, got data in other, scan"):
        convert_ismrmrd(source, tmp_path / "one.h5")
    with h5py.File(source, "a") as file:
        del file["other"], file["scan/xml"]
    with pytest.raises(ValueError, match=r"raw.h5: the group 'scan' has no header, a data set 'xml'"):
        convert_ismrmrd(source, tmp_path / "one.h5")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dimensions": "4d"}, "dimensions must be one of auto, 2d, 3d, got '4d'"),
        ({"max_memory": 0}, "max_memory must be at least 1, got 0"),
        ({"output": Path("raw.mrd")}, "output must be another file than source"),
    ],
)
def test_bad_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        convert_ismrmrd(**{"source": Path("raw.mrd"), "output": Path("one.h5"), **options})


def test_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ismrmrd", None)
    with pytest.raises(ImportError, match=r"MRD files need ismrmrd .*: pip install 'fastmri-ufloss\[convert\]'"):
        convert_ismrmrd(tmp_path / "raw.mrd", tmp_path / "one.h5")
