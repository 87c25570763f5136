"""Siemens raw data: files built for the test, as their reader writes them, and real ones against that reader."""

import struct
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from helpers import DATA, ifftc, needs_data, randn_complex

twixtools = pytest.importorskip("twixtools")
pytest.importorskip("ismrmrd")
from twixtools.mdb import Mdb_local  # noqa: E402

from fastmri_ufloss.convert.__main__ import main  # noqa: E402
from fastmri_ufloss.convert.ismrmrd_raw import convert_ismrmrd  # noqa: E402
from fastmri_ufloss.convert.twix_raw import convert_twix  # noqa: E402
from fastmri_ufloss.simulation.mrd_file import write_mrd  # noqa: E402

COILS, READOUT, ROWS, SLICES = 3, 12, 10, 2


def header(*, lines: int = ROWS, partitions: int = 1, oversampling: float = 2.0, **more: object) -> np.ndarray:
    """The text of a header in the reader's form."""
    fields = {
        "tProtocolName": '"a_protocol"',
        "sSliceArray.asSlice[0].dReadoutFOV": 24.0,
        "sSliceArray.asSlice[0].dPhaseFOV": 20.0,
        "sSliceArray.asSlice[0].dThickness": 3.0,
        "sRXSPEC.alDwellTime[0]": 5000,
        "sKSpace.ucTrajectory": 1,
        **more,
    }
    text = "\n".join(f"{name} = {value}" for name, value in fields.items())
    yaps = f"### ASCCONV BEGIN ###\n{text}\n\n### ASCCONV END ###".encode()
    numbers = {"flReadoutOSFactor": oversampling, "iPEFTLength": lines, "i3DFTLength": partitions}
    words = {"tPatientName": "Jane_Doe", "ManufacturersModelName": "One"}
    meas = "".join(f'<ParamDouble."{name}"> {{ {value} }}\n' for name, value in numbers.items())
    meas += "".join(f'<ParamString."{name}"> {{ "{value}" }}\n' for name, value in words.items())
    buffers = b"".join(
        name + b"\0" + struct.pack("<I", len(content)) + content
        for name, content in ((b"MeasYaps", yaps), (b"Meas", meas.encode()))
    )
    body = struct.pack("<I", 2) + buffers
    body += b"\0" * (-(len(body) + 4) % 32)
    return np.frombuffer(struct.pack("<I", len(body) + 4) + body, dtype="S1").copy()


def block(samples: np.ndarray, flags: tuple[str, ...] = (), **counters: int) -> Mdb_local:
    """A measurement block of samples (coils, readout)."""
    mdb = Mdb_local(samples.astype(np.complex64))
    mdb.mdh.CenterCol = counters.pop("CenterCol", samples.shape[1] // 2)
    mdb.mdh.CenterLin = counters.pop("CenterLin", 0)
    for name, value in counters.items():
        setattr(mdb.mdh.Counter, name, value)
    for flag in flags:
        mdb.add_flag(flag)
    return mdb


def write(path: Path, *scans: tuple[np.ndarray, list[Mdb_local]]) -> Path:
    twixtools.write_twix([{"hdr_str": hdr, "mdb": blocks} for hdr, blocks in scans], str(path))
    return path


def oversampled(kspace: np.ndarray) -> np.ndarray:
    """K-space (..., readout) with twice the field of view."""
    size = kspace.shape[-1]
    images = np.fft.fftshift(np.fft.ifft(np.fft.ifftshift(kspace, axes=-1), norm="ortho"), axes=-1)
    widths = [(0, 0)] * (kspace.ndim - 1) + [(size - size // 2, size // 2)]
    padded = np.pad(images, widths)
    return np.fft.fftshift(np.fft.fft(np.fft.ifftshift(padded, axes=-1), norm="ortho"), axes=-1)


def volume_of(path: Path) -> tuple[np.ndarray, dict[str, Any]]:
    with h5py.File(path) as file:
        return file["kspace"][()], dict(file.attrs)


def scan_of_slices() -> np.ndarray:
    """K-space (coils, readout, rows, slices)."""
    return randn_complex(COILS, READOUT, ROWS, SLICES, seed=3).numpy() * 1e-3


def blocks_of(kspace: np.ndarray, *, counter: str = "Sli") -> list[Mdb_local]:
    lines = oversampled(np.moveaxis(kspace, 1, -1))  # (coils, rows, slices, samples)
    return [
        block(lines[:, row, place], Lin=row, **{counter: place})
        for place in range(kspace.shape[3])
        for row in range(kspace.shape[2])
    ]


@pytest.mark.parametrize("is_3d", [False, True])
def test_the_volume_is_that_of_the_same_scan_as_mrd(tmp_path: Path, is_3d: bool) -> None:
    kspace = scan_of_slices()
    hdr = header(partitions=SLICES if is_3d else 1)
    twix = write(tmp_path / "meas.dat", (hdr, blocks_of(kspace, counter="Par" if is_3d else "Sli")))
    convert_twix(twix, tmp_path / "twix.h5")
    field = (24.0, 20.0, 3.0)
    write_mrd(tmp_path / "meas.h5", kspace, oversampling=2, multislice=not is_3d, field_of_view=field)
    convert_ismrmrd(tmp_path / "meas.h5", tmp_path / "mrd.h5")
    found, attributes = volume_of(tmp_path / "twix.h5")
    expected, _ = volume_of(tmp_path / "mrd.h5")
    assert found.shape == expected.shape == ((READOUT if is_3d else SLICES), COILS, *found.shape[2:])
    np.testing.assert_allclose(found, expected, atol=1e-6 * np.abs(expected).max())
    if not is_3d:
        np.testing.assert_allclose(found, np.moveaxis(kspace, 3, 0), atol=1e-6 * np.abs(kspace).max())
    told = {name: attributes[name] for name in ("source_format", "system_vendor", "system_model", "acquisition")}
    assert told == {"source_format": "TWIX", "system_vendor": "SIEMENS", "system_model": "One",
                    "acquisition": "a_protocol"}  # fmt: skip
    with h5py.File(tmp_path / "twix.h5") as file:
        assert b"Jane" not in file["source_header"][()] and attributes["patient_id"] == ""


def test_averages_reversed_lines_and_lines_of_no_image(tmp_path: Path) -> None:
    kspace = scan_of_slices()[..., :1]
    blocks = blocks_of(kspace)
    noisy = [block(2 * b.data, Lin=b.mdh.Counter.Lin, Ave=1) for b in blocks]
    blocks[3] = block(blocks[3].data[:, ::-1], ("REFLECT",), Lin=3, CenterCol=READOUT - 1 + 1)
    junk = [block(99 * blocks[0].data, (flag,), Lin=4) for flag in ("PHASCOR", "RTFEEDBACK", "RETRO_DUMMYSCAN")]
    convert_twix(write(tmp_path / "meas.dat", (header(), [*junk, *blocks, *noisy])), tmp_path / "out.h5")
    found, _ = volume_of(tmp_path / "out.h5")
    expected = 1.5 * np.moveaxis(kspace, 3, 0)
    kept = [row for row in range(ROWS) if row != 3]  # a reversed line of an even size is shifted by a sample
    np.testing.assert_allclose(found[..., kept], expected[..., kept], atol=1e-6 * np.abs(expected).max())


def test_coils_are_whitened_by_the_noise_of_the_measurement_before(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    mixing = rng.normal(size=(COILS, COILS)) + 1j * rng.normal(size=(COILS, COILS))
    noise = [block(mixing @ randn_complex(COILS, 400, seed=n).numpy(), ("NOISEADJSCAN",)) for n in range(20)]
    scan = blocks_of(scan_of_slices()[..., :1])
    mixed = [block(mixing @ b.data, Lin=b.mdh.Counter.Lin) for b in scan]
    twix = write(tmp_path / "meas.dat", (header(), noise), (header(), mixed))
    convert_twix(twix, tmp_path / "white.h5")
    white, attributes = volume_of(tmp_path / "white.h5")
    assert attributes["prewhitened"]
    # whitening undoes the mixing but for a unitary matrix
    expected = np.moveaxis(scan_of_slices()[..., :1], 3, 0)
    ratio = np.linalg.norm(white) / np.linalg.norm(expected)
    np.testing.assert_allclose(
        np.abs(np.linalg.norm(white, axis=1)), ratio * np.linalg.norm(expected, axis=1), rtol=0.1
    )
    convert_twix(twix, tmp_path / "plain.h5", prewhiten=False)
    plain, _ = volume_of(tmp_path / "plain.h5")
    np.testing.assert_allclose(plain[0], np.tensordot(mixing, expected[0], 1), atol=1e-5 * np.abs(plain).max())


def test_partial_fourier_is_placed_by_the_center_line(tmp_path: Path) -> None:
    kspace = scan_of_slices()[..., :1]
    blocks = blocks_of(kspace)[3:]
    for row, mdb in enumerate(blocks):
        mdb.mdh.Counter.Lin, mdb.mdh.CenterLin = row, ROWS // 2 - 3
    convert_twix(write(tmp_path / "meas.dat", (header(), blocks)), tmp_path / "out.h5")
    found, _ = volume_of(tmp_path / "out.h5")
    expected = np.moveaxis(kspace, 3, 0).copy()
    expected[..., :3] = 0
    np.testing.assert_allclose(found, expected, atol=1e-6 * np.abs(expected).max())


def test_echoes_are_chosen_by_their_counter_or_their_place(tmp_path: Path) -> None:
    first, second = scan_of_slices()[..., :1], 2 * scan_of_slices()[..., :1]
    pairs = list(zip(blocks_of(first), blocks_of(second), strict=True))
    for line, pair in enumerate(pairs):
        for echo, mdb in enumerate(pair):
            mdb.mdh.Counter.Lin, mdb.mdh.Counter.Eco = line, echo
    own = write(tmp_path / "own.dat", (header(), [mdb for pair in pairs for mdb in pair]))
    for number, mdb in enumerate(mdb for pair in pairs for mdb in pair):
        mdb.mdh.Counter.Lin, mdb.mdh.Counter.Eco = number, 0
    places = write(tmp_path / "places.dat", (header(), [mdb for pair in pairs for mdb in pair]))
    for echo, kspace in enumerate((first, second)):
        convert_twix(own, tmp_path / f"own{echo}.h5", contrast=echo)
        convert_twix(places, tmp_path / f"places{echo}.h5", contrast=echo, echoes=2)
        for name in ("own", "places"):
            found, _ = volume_of(tmp_path / f"{name}{echo}.h5")
            np.testing.assert_allclose(found, np.moveaxis(kspace, 3, 0), atol=1e-6 * np.abs(kspace).max())
    with pytest.raises(ValueError, match="contrast must be the same for all lines"):
        convert_twix(own, tmp_path / "out.h5")


def test_what_cannot_be_converted_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good = blocks_of(scan_of_slices()[..., :1])
    (tmp_path / "text.dat").write_text("no raw data")
    (tmp_path / "zeros.dat").write_bytes(bytes(40_000))
    noise = [block(good[0].data, ("NOISEADJSCAN",))]
    whole = write(tmp_path / "whole.dat", (header(), good)).read_bytes()
    (tmp_path / "cut.dat").write_bytes(whole[: len(whole) * 2 // 3])
    (tmp_path / "head.dat").write_bytes(whole[:10_600])
    for name in ("text", "zeros", "head", "cut"):
        with pytest.raises(ValueError, match=rf"{name}\.dat"):
            convert_twix(tmp_path / f"{name}.dat", tmp_path / "out.h5")
    for name, hdr, blocks, message in [
        ("noise", header(), noise, "a scan of an image"),
        ("radial", header(**{"sKSpace.ucTrajectory": 2}), good, "trajectory must be cartesian"),
        (
            "field",
            header(**{"sSliceArray.asSlice[0].dPhaseFOV": 0.0}),
            good,
            "dPhaseFOV of the header must be above 0",
        ),
    ]:
        with pytest.raises(ValueError, match=message):
            convert_twix(write(tmp_path / f"{name}.dat", (hdr, blocks)), tmp_path / "out.h5")
    assert not (tmp_path / "out.h5").exists()
    monkeypatch.setitem(sys.modules, "twixtools", None)
    with pytest.raises(ImportError, match=r"TWIX files need twixtools .*pip install 'fastmri-ufloss\[convert\]'"):
        convert_twix(tmp_path / "whole.dat", tmp_path / "out.h5")


@needs_data()
def test_real_files_have_the_samples_of_their_reader(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, echoes in (("pulseq_01_GRE", 1), ("pulseq_02_GRE_3echoes", 3)):
        path = DATA / "twix" / f"{name}.dat"
        blocks = twixtools.read_twix(str(path), parse_pmu=False, verbose=False)[-1]["mdb"]
        samples = np.stack([mdb.data for mdb in blocks])  # (lines, 1, 256)
        for echo in range(echoes):
            output = tmp_path / f"{name}{echo}"
            line = ["twix", str(path), "--output_path", str(output), "--echoes", str(echoes), "--contrast", str(echo)]
            assert main(line) == 0
            assert "256 lines go beyond the header, which has 64" in capsys.readouterr().err
            found, _ = volume_of(output / f"{name}.h5")
            np.testing.assert_array_equal(found[0, 0], samples[echo::echoes, 0].T)
            with h5py.File(output / f"{name}.h5") as file:
                images = file["reconstruction_rss"][()]
            np.testing.assert_allclose(images, np.abs(ifftc(found[:, 0], axes=(-2, -1))), rtol=1e-4, atol=1e-9)
