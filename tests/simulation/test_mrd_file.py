import sys

import h5py
import numpy as np
import pytest
from helpers import ifftc

from fastmri_ufloss.convert.ismrmrd_raw import convert_ismrmrd
from fastmri_ufloss.simulation.mrd_file import write_mrd

ismrmrd = pytest.importorskip("ismrmrd")

COILS, READOUT, ROWS, COLS = 3, 12, 6, 5


def random_kspace(*shape, seed=0):
    generator = np.random.default_rng(seed)
    return (generator.standard_normal(shape) + 1j * generator.standard_normal(shape)).astype(np.complex64)


def read(path):
    """Header and acquisitions by ismrmrd's own reader."""
    with ismrmrd.Dataset(str(path), mode="r") as data:
        header = ismrmrd.xsd.CreateFromDocument(data.read_xml_header())
        return header, [data.read_acquisition(number) for number in range(data.number_of_acquisitions())]


def place(header, acquisitions):
    """K-space (coils, readout, rows, cols) of the lines, each put in its place; zero elsewhere."""
    size = header.encoding[0].encodedSpace.matrixSize
    kspace = np.zeros((header.acquisitionSystemInformation.receiverChannels, size.x, size.y, size.z), np.complex64)
    for acquisition in acquisitions:
        index = acquisition.idx
        kspace[:, :, index.kspace_encode_step_1, index.kspace_encode_step_2] = acquisition.data
    return kspace


@pytest.fixture
def kspace():
    return random_kspace(COILS, READOUT, ROWS, COLS)


@pytest.mark.parametrize("order_seed", [None, 4])
def test_acquisitions_put_in_their_places_are_the_kspace(tmp_path, kspace, order_seed):
    write_mrd(tmp_path / "a.h5", kspace, order_seed=order_seed)
    header, acquisitions = read(tmp_path / "a.h5")
    assert len(acquisitions) == ROWS * COLS
    assert np.array_equal(place(header, acquisitions), kspace)
    order = [(one.idx.kspace_encode_step_2, one.idx.kspace_encode_step_1) for one in acquisitions]
    assert (order == sorted(order)) == (order_seed is None)


@pytest.mark.parametrize("readout", [12, 11])
@pytest.mark.parametrize("oversampling", [2, 3])
def test_oversampled_readout_has_the_same_images_in_its_middle(tmp_path, readout, oversampling):
    kspace = random_kspace(COILS, readout, ROWS, COLS)
    write_mrd(tmp_path / "a.h5", kspace, oversampling=oversampling, order_seed=0)
    header, acquisitions = read(tmp_path / "a.h5")
    images = ifftc(place(header, acquisitions))
    assert images.shape == (COILS, readout * oversampling, ROWS, COLS)
    start = readout * oversampling // 2 - readout // 2
    np.testing.assert_allclose(images[:, start : start + readout], ifftc(kspace), atol=1e-5)
    np.testing.assert_allclose(np.delete(images, np.arange(start, start + readout), axis=1), 0, atol=1e-5)
    assert {one.center_sample for one in acquisitions} == {readout * oversampling // 2}


def test_header(tmp_path, kspace):
    write_mrd(
        tmp_path / "a.h5",
        kspace,
        oversampling=2,
        field_of_view=(160.0, 150.0, 120.0),
        patient_id="me",
        protocol="3D FSE",
    )
    header, _ = read(tmp_path / "a.h5")
    (encoding,) = header.encoding
    encoded, recon = (
        [*vars(space.matrixSize).values(), *vars(space.fieldOfView_mm).values()]
        for space in (encoding.encodedSpace, encoding.reconSpace)
    )
    assert encoded == [2 * READOUT, ROWS, COLS, 320, 150, 120]
    assert recon == [READOUT, ROWS, COLS, 160, 150, 120]
    limits = encoding.encodingLimits
    assert vars(limits.kspace_encoding_step_1) == {"minimum": 0, "maximum": ROWS - 1, "center": ROWS // 2}
    assert vars(limits.kspace_encoding_step_2) == {"minimum": 0, "maximum": COLS - 1, "center": COLS // 2}
    assert encoding.trajectory.value == "cartesian"
    system = header.acquisitionSystemInformation
    assert system.receiverChannels == COILS and system.systemFieldStrength_T == 3
    assert header.experimentalConditions.H1resonanceFrequency_Hz == pytest.approx(127.73e6, rel=1e-3)
    assert header.subjectInformation.patientID == "me"
    assert header.measurementInformation.protocolName == "3D FSE"


def test_heads_of_the_acquisitions(tmp_path, kspace):
    write_mrd(tmp_path / "a.h5", kspace, order_seed=1)
    _, acquisitions = read(tmp_path / "a.h5")
    first, last = acquisitions[0], acquisitions[-1]
    assert first.is_flag_set(ismrmrd.ACQ_FIRST_IN_SLICE) and not first.is_flag_set(ismrmrd.ACQ_LAST_IN_SLICE)
    assert last.is_flag_set(ismrmrd.ACQ_LAST_IN_SLICE) and last.is_flag_set(ismrmrd.ACQ_LAST_IN_MEASUREMENT)
    assert all(one.flags == 0 for one in acquisitions[1:-1])
    assert [one.scan_counter for one in acquisitions] == list(range(ROWS * COLS))
    assert list(first.channel_mask) == [2**COILS - 1] + [0] * 15
    assert (first.number_of_samples, first.active_channels, first.available_channels) == (READOUT, COILS, COILS)


def test_file_is_as_ismrmrd_writes_it(tmp_path, kspace):
    """The same acquisitions appended by ismrmrd make the same file."""
    write_mrd(tmp_path / "a.h5", kspace)
    header, acquisitions = read(tmp_path / "a.h5")
    with ismrmrd.Dataset(str(tmp_path / "b.h5")) as data:
        data.write_xml_header(ismrmrd.xsd.ToXML(header, encoding="utf-8"))
        for acquisition in acquisitions:
            data.append_acquisition(acquisition)
    with ismrmrd.Dataset(str(tmp_path / "a.h5"), mode="r") as ours, ismrmrd.Dataset(str(tmp_path / "b.h5")) as its:
        assert list(ours.list()) == list(its.list())
        assert ours.read_xml_header() == its.read_xml_header()
        a, b = (one._dataset["data"] for one in (ours, its))
        assert a.dtype == b.dtype and a.shape == b.shape and a.maxshape == b.maxshape
        assert all((p["head"] == q["head"]).all() for p, q in zip(a[()], b[()], strict=True))
        assert all(np.array_equal(p["data"], q["data"]) for p, q in zip(a[()], b[()], strict=True))
    with ismrmrd.Dataset(str(tmp_path / "a.h5")) as data:  # a further one can be appended
        data.append_acquisition(acquisitions[0])
        assert data.number_of_acquisitions() == ROWS * COLS + 1


def test_coils_may_come_from_an_iterator_and_in_any_precision(tmp_path, kspace, monkeypatch):
    monkeypatch.setattr("fastmri_ufloss.simulation.mrd_file.SLAB", 7)  # several slabs
    write_mrd(tmp_path / "a.h5", (coil.astype(complex) for coil in kspace))
    assert np.array_equal(place(*read(tmp_path / "a.h5")), kspace)


def test_lines_outside_the_mask_are_left_out(tmp_path, kspace):
    mask = np.random.default_rng(1).uniform(size=(ROWS, COLS)) < 0.6
    kspace[..., ~mask] = np.nan  # they are not even looked at
    write_mrd(tmp_path / "a.h5", kspace, mask=mask, order_seed=0)
    header, acquisitions = read(tmp_path / "a.h5")
    assert len(acquisitions) == mask.sum()
    assert np.array_equal(place(header, acquisitions), np.where(mask, kspace, 0))
    assert header.encoding[0].encodingLimits.kspace_encoding_step_1.maximum == ROWS - 1


def test_slices_of_a_2d_scan(tmp_path, kspace):
    write_mrd(tmp_path / "a.h5", kspace, multislice=True, order_seed=2, field_of_view=(160.0, 160.0, 3.0))
    header, acquisitions = read(tmp_path / "a.h5")
    found = np.zeros_like(kspace)
    for one in acquisitions:
        assert one.idx.kspace_encode_step_2 == 0
        assert one.position[2] == pytest.approx(3 * (one.idx.slice - (COLS - 1) / 2))
        found[..., one.idx.kspace_encode_step_1, one.idx.slice] = one.data
    assert np.array_equal(found, kspace)
    encoding = header.encoding[0]
    assert encoding.encodedSpace.matrixSize.z == 1 and encoding.encodedSpace.fieldOfView_mm.z == 3
    assert encoding.encodingLimits.slice.maximum == COLS - 1
    assert encoding.encodingLimits.kspace_encoding_step_2.maximum == 0
    for flag in (ismrmrd.ACQ_FIRST_IN_SLICE, ismrmrd.ACQ_LAST_IN_SLICE):
        assert sorted(one.idx.slice for one in acquisitions if one.is_flag_set(flag)) == list(range(COLS))


@pytest.mark.parametrize("oversampling", [1, 2])
@pytest.mark.parametrize("multislice", [False, True])
def test_converted_volume_has_the_images(tmp_path, kspace, oversampling, multislice):
    options = {"oversampling": oversampling, "multislice": multislice, "order_seed": 1}
    write_mrd(tmp_path / "a.h5", kspace, **options)
    convert_ismrmrd(tmp_path / "a.h5", tmp_path / "b.h5", prewhiten=False)
    with h5py.File(tmp_path / "b.h5") as volume:
        images = ifftc(volume["kspace"][()], (-2, -1))
    # slices are (readout, ky) of a 2D scan, and (ky, kz) at each position of the readout of a 3D scan
    expected = ifftc(kspace, (1, 2)).transpose(3, 0, 1, 2) if multislice else ifftc(kspace).transpose(1, 0, 2, 3)
    np.testing.assert_allclose(images, expected, atol=1e-5)


def test_write_that_fails_keeps_the_old_file(tmp_path, kspace):
    write_mrd(tmp_path / "a.h5", kspace)
    before = (tmp_path / "a.h5").read_bytes()

    def broken():
        yield kspace[0]
        raise RuntimeError("scanner")

    with pytest.raises(RuntimeError, match="scanner"):
        write_mrd(tmp_path / "a.h5", broken())
    assert [path.name for path in tmp_path.iterdir()] == ["a.h5"]
    assert (tmp_path / "a.h5").read_bytes() == before


def test_missing_package_is_named(tmp_path, kspace, monkeypatch):
    monkeypatch.setitem(sys.modules, "ismrmrd", None)
    with pytest.raises(ImportError, match=r"pip install 'fastmri-ufloss\[convert\]'"):
        write_mrd(tmp_path / "a.h5", kspace)
    assert list(tmp_path.iterdir()) == []


GOOD = random_kspace(2, 4, 5, 6)
NAN = np.full_like(GOOD, np.nan)


@pytest.mark.parametrize(
    ("name", "kspace", "options"),
    [
        ("kspace", GOOD.real, {}),
        ("kspace", GOOD[0], {}),
        ("kspace", GOOD[:0], {}),
        ("kspace", GOOD[:, :0], {}),
        ("kspace", NAN, {}),
        ("kspace", [GOOD[0], GOOD[1, :3]], {}),
        ("mask", GOOD, {"mask": np.ones((6, 5))}),
        ("mask", GOOD, {"mask": np.zeros((5, 6))}),
        ("oversampling", GOOD, {"oversampling": 0}),
        ("oversampling", GOOD, {"oversampling": 1.5}),
        ("order_seed", GOOD, {"order_seed": -1}),
        ("field_of_view", GOOD, {"field_of_view": (1.0, 0.0, 1.0)}),
    ],
)
def test_bad_input_is_named(tmp_path, name, kspace, options):
    with pytest.raises(ValueError, match=f"{name} must be"):
        write_mrd(tmp_path / "a.h5", kspace, **options)
    assert list(tmp_path.iterdir()) == []
