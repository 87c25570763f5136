import io
import sys

import fastmri
import h5py
import numpy as np
import pydicom
import pytest
import torch
from fastmri.data import SliceDataset
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    CTImageStorage,
    EnhancedMRImageStorage,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    MediaStorageDirectoryStorage,
    MRImageStorage,
    RLELossless,
    generate_uid,
)

from fastmri_ufloss.convert.magnitudes import convert_dicom, is_dicom
from fastmri_ufloss.data.index import read_metadata

EXACT = {"num_coils": None, "snr": np.inf}
AXIAL, CORONAL, SAGITTAL = [1, 0, 0, 0, 1, 0], [1, 0, 0, 0, 0, -1], [0, 1, 0, 0, 0, -1]
SERIES = generate_uid(entropy_srcs=["series"])


def volume(slices=5, rows=8, cols=6, seed=0):
    return np.random.default_rng(seed).integers(1, 4000, (slices, rows, cols)).astype(np.uint16)


def make(pixels, position=(-10.5, 20.25, 30.0), orientation=AXIAL, *, syntax=ExplicitVRLittleEndian, **elements):
    """A classic MR image; an element of None is left out."""
    dataset, kind = Dataset(), elements.pop("SOPClassUID", MRImageStorage)
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = kind
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = generate_uid()
    standard = {
        "SeriesInstanceUID": SERIES,
        "Modality": "MR",
        "PatientID": "4711",
        "PatientName": "Roe^Jane",
        "InstitutionName": "Roe Hospital",
        "SeriesDescription": "T1 of Roe",
        "PatientBirthDate": "19700101",
        "ImagePositionPatient": None if position is None else list(position),
        "ImageOrientationPatient": orientation,
        "PixelSpacing": [0.7, 1.1],
        "SliceThickness": 2.5,
        "ImageType": ["ORIGINAL", "PRIMARY", "M", "ND"],
        "Rows": pixels.shape[0],
        "Columns": pixels.shape[1],
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "BitsAllocated": 16,
        "BitsStored": 16,
        "HighBit": 15,
        "PixelRepresentation": int(pixels.dtype.kind == "i"),
        "PixelData": pixels.astype(f"<{pixels.dtype.kind}2").tobytes(),
    }
    for name, value in {**standard, **elements}.items():
        if value is not None:
            setattr(dataset, name, value)
    return dataset


def save(path, dataset):
    pydicom.dcmwrite(path, dataset, enforce_file_format=True)
    return path


def save_series(folder, images, *, orientation=AXIAL, start=(-10.5, 20.25, 30.0), step=(0, 0, 3.0), **elements):
    """A file for each slice, named in an order that has nothing to do with that of the slices."""
    folder.mkdir(exist_ok=True)
    names = np.random.default_rng(len(images)).permutation(len(images))
    for number, (name, image) in enumerate(zip(names, images, strict=True)):
        position = np.array(start) + number * np.array(step)
        save(folder / f"IM{name:03d}", make(image, position, orientation, InstanceNumber=int(name) + 1, **elements))
    return folder


def read(path):
    """Magnitude images of the k-space with fastMRI's own transform, and the attributes."""
    with h5py.File(path) as file:
        kspace, attributes = file["kspace"][()], dict(file.attrs)
    images = torch.view_as_complex(fastmri.ifft2c(torch.view_as_real(torch.from_numpy(kspace)))).abs().numpy()
    return images, attributes


def convert(source, tmp_path, **options):
    convert_dicom(source, tmp_path / "a.h5", **{**EXACT, **options})
    return read(tmp_path / "a.h5")


def assert_same(got, expected):
    assert got.shape == expected.shape
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6 * float(np.abs(expected).max()))


# order and place


@pytest.mark.parametrize(
    ("orientation", "step"),
    [
        (AXIAL, (0, 0, 3.0)),  # towards the head
        (CORONAL, (0, 1.5, 0)),  # towards the back
        (SAGITTAL, (4.0, 0, 0)),  # towards the left
        ([-1, 0, 0, 0, 1, 0], (0, 0, 3.0)),  # mirrored rows: kept, and the slices run to the head all the same
        ([0.8, 0.6, 0, -0.6, 0.8, 0], (0, 0, 0.5)),
        ([1, 0, 0, 0, 0.8, -0.6], (0, 1.8, 2.4)),  # oblique
    ],
)
def test_slices_are_sorted_by_position(tmp_path, orientation, step):
    images = volume()
    for direction in (1, -1):
        source = save_series(
            tmp_path / f"in{direction}",
            images[::direction],
            orientation=orientation,
            start=np.array([-10.5, 20.25, 30.0]) + (0 if direction > 0 else 4 * np.array(step)),
            step=direction * np.array(step),
        )
        got, attributes = convert(source, tmp_path)
        assert_same(got, images)
        positions = np.array([-10.5, 20.25, 30.0]) + np.arange(5)[:, None] * step
        np.testing.assert_allclose(attributes["image_position_patient"], positions, atol=1e-6)
        np.testing.assert_allclose(attributes["image_orientation_patient"], orientation)
        np.testing.assert_allclose(attributes["pixel_spacing"], [0.7, 1.1])
        # a voxel's place, by the affine and by DICOM's equation
        along_row, along_column = np.array(orientation[:3]), np.array(orientation[3:])
        for number, row, col in [(0, 0, 0), (3, 7, 1), (4, 2, 5)]:
            expected = positions[number] + along_row * 1.1 * col + along_column * 0.7 * row
            np.testing.assert_allclose((attributes["affine"] @ [number, row, col, 1])[:3], expected, atol=1e-6)


def test_header_has_the_voxel_size(tmp_path):
    convert(save_series(tmp_path / "in", volume(), step=(0, 0, 3.0)), tmp_path)
    with h5py.File(tmp_path / "a.h5") as file:
        header = file["ismrmrd_header"][()].decode()
    field = header.split("fieldOfView_mm>")[1].replace("<", ">").split(">")[2::4]
    np.testing.assert_allclose([float(size) for size in field], [8 * 0.7, 6 * 1.1, 3.0], rtol=1e-6)


def test_nifti_of_the_same_images_is_the_same_volume(tmp_path):
    nib = pytest.importorskip("nibabel")
    from fastmri_ufloss.convert.magnitudes import convert_nifti

    steps = {"axial": (AXIAL, (0, 0, 3.0)), "coronal": (CORONAL, (0, 3.0, 0)), "sagittal": (SAGITTAL, (3.0, 0, 0))}
    for slice_axis, (orientation, step) in steps.items():
        source = save_series(tmp_path / slice_axis, volume(), orientation=orientation, step=step)
        images, attributes = convert(source, tmp_path)
        to_ras = np.diag([-1, -1, 1, 1]) @ attributes["affine"]
        nib.save(nib.as_closest_canonical(nib.Nifti1Image(images, to_ras)), tmp_path / "a.nii")
        convert_nifti(tmp_path / "a.nii", tmp_path / "b.h5", slice_axis=slice_axis, **EXACT)
        again, of_nifti = read(tmp_path / "b.h5")
        assert_same(again, images)
        np.testing.assert_allclose(of_nifti["affine"], attributes["affine"], atol=1e-4)


def test_one_image(tmp_path):
    image = volume(1)
    path = save(tmp_path / "one.dcm", make(image[0], SpacingBetweenSlices=4.0))
    got, attributes = convert(path, tmp_path)
    assert_same(got, image)
    np.testing.assert_allclose(attributes["affine"][:3, 0], [0, 0, 4])
    bare = save(tmp_path / "bare.dcm", make(image[0], None, None, SliceThickness=None))
    got, attributes = convert(bare, tmp_path)
    assert_same(got, image)
    assert "affine" not in attributes and "image_position_patient" not in attributes


def test_other_files_in_the_folder_are_skipped(tmp_path):
    source = save_series(tmp_path / "in", volume())
    (source / "notes.txt").write_text("no image " * 50)
    (source / "empty").touch()
    (source / "._IM001.dcm").write_bytes(b"Mac OS X" * 50)
    (source / "DICOMDIR").write_bytes((source / "IM001").read_bytes())
    save(source / "index", make(volume()[0], SOPClassUID=MediaStorageDirectoryStorage, Rows=None, PixelData=None))
    report = make(volume()[0], SOPClassUID="1.2.840.10008.5.1.4.1.1.88.11", Rows=None, SeriesInstanceUID="1.2.3")
    save(source / "report", report)
    (source / "deeper").mkdir()
    save(source / "deeper" / "IM", make(volume()[0], SeriesInstanceUID="1.2.4"))
    assert_same(convert(source, tmp_path)[0], volume())


def test_series_is_chosen(tmp_path):
    source = save_series(tmp_path / "in", volume())
    for path in sorted(save_series(tmp_path / "other", volume(3, 9, 7, seed=1), SeriesInstanceUID="1.2.3").iterdir()):
        path.rename(source / f"other-{path.name}")
    assert_same(convert(source, tmp_path, series=SERIES)[0], volume())
    assert_same(convert(source, tmp_path, series="1.2.3")[0], volume(3, 9, 7, seed=1))
    listed = rf"1\.2\.3 \(T1 of Roe, 3 images\); {SERIES} \(T1 of Roe, 5 images\).*choose one by series="
    with pytest.raises(ValueError, match=f"one series is needed, got {listed}"):
        convert(source, tmp_path)
    with pytest.raises(ValueError, match=rf"no series 9\.9, got {listed}"):
        convert(source, tmp_path, series="9.9")


# values


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
def test_values_after_slope_and_intercept(tmp_path, syntax):
    images = volume().astype(np.int16) - 100
    source = save_series(tmp_path / "in", images, syntax=syntax, RescaleSlope=0.25, RescaleIntercept=30)
    assert_same(convert(source, tmp_path)[0], images * 0.25 + 30)
    source = save_series(tmp_path / "slope", volume(), syntax=syntax, RescaleSlope=2.5)
    assert_same(convert(source, tmp_path)[0], volume() * 2.5)


def test_each_image_has_its_own_slope(tmp_path):
    (tmp_path / "in").mkdir()
    for number, image in enumerate(volume()):
        dataset = make(image, (0, 0, number), RescaleSlope=number + 0.5, RescaleIntercept=number)
        save(tmp_path / "in" / f"{number}", dataset)
    number = np.arange(5)[:, None, None]
    assert_same(convert(tmp_path / "in", tmp_path)[0], volume() * (number + 0.5) + number)


def test_compressed_without_loss(tmp_path):
    dataset = make(volume()[0])
    dataset.compress(RLELossless)
    save(tmp_path / "a.dcm", dataset)
    assert_same(convert(tmp_path / "a.dcm", tmp_path)[0], volume()[:1])


@pytest.mark.parametrize("implicit", [True, False])
def test_files_without_the_preamble(tmp_path, implicit):
    (tmp_path / "in").mkdir()
    for number, image in enumerate(volume()):
        dataset = make(image, (0, 0, number))
        del dataset.file_meta
        pydicom.dcmwrite(tmp_path / "in" / f"{number}", dataset, implicit_vr=implicit, little_endian=True)
    assert is_dicom(tmp_path / "in" / "0")
    assert_same(convert(tmp_path / "in", tmp_path)[0], volume())


def test_multicoil_volume_opens_in_fastmri(tmp_path):
    source = save_series(tmp_path / "in", volume())
    convert_dicom(source, tmp_path / "data" / "a.h5", snr=np.inf, acquisition="AXT2", attributes={"site": "x"})
    data = SliceDataset(tmp_path / "data", "multicoil")
    assert len(data) == 5
    kspace, _, target, attributes, _, _ = data[3]
    assert kspace.shape == (8, 8, 6)
    assert_same(target, volume()[3])
    assert (attributes["acquisition"], attributes["site"]) == ("AXT2", "x")
    known = read_metadata(tmp_path / "data" / "a.h5", "multicoil")
    assert known["kspace_shape"] == [5, 8, 8, 6] and known["modality"] == "MR"
    assert len(known["image_position_patient"]) == 5


def test_noise_level(tmp_path):
    images = volume(2, 64, 48)
    source = save_series(tmp_path / "in", images)
    for name, snr in (("clean", np.inf), ("noisy", 20)):
        convert_dicom(source, tmp_path / f"{name}.h5", snr=snr, num_coils=4)
    with h5py.File(tmp_path / "clean.h5") as clean, h5py.File(tmp_path / "noisy.h5") as noisy:
        noise = noisy["kspace"][()] - clean["kspace"][()]
    mean = images[images > 0.1 * images.max()].mean()
    assert mean / np.sqrt((np.abs(noise) ** 2).mean()) == pytest.approx(20, rel=0.03)


def test_options_change_the_volume(tmp_path):
    source = save_series(tmp_path / "in", volume(2, 16, 12))

    def kspace(**options):
        convert_dicom(source, tmp_path / "a.h5", **options)
        with h5py.File(tmp_path / "a.h5") as file:
            return file["kspace"][()]

    plain = kspace()
    assert np.array_equal(plain, kspace()) and kspace(num_coils=3).shape == (2, 3, 16, 12)
    for options in ({"snr": 5.0}, {"phase_strength": 0.2}, {"seed": 1}):
        assert np.abs(kspace(**options) - plain).max() > 1, options


# privacy


def test_nothing_personal_is_copied(tmp_path):
    convert_dicom(save_series(tmp_path / "in", volume()), tmp_path / "a.h5")
    content = (tmp_path / "a.h5").read_bytes()
    for personal in (b"Roe", b"Jane", b"4711", b"19700101", b"Hospital", SERIES.encode()):
        assert personal not in content
    attributes = read(tmp_path / "a.h5")[1]
    assert sorted(attributes) == [
        *("acquisition", "affine", "affine_convention", "image_orientation_patient", "image_position_patient"),
        *("max", "modality", "norm", "patient_id", "pixel_spacing"),
        *("simulated_phase_strength", "simulated_seed", "simulated_snr", "source_format"),
    ]


def test_subjects_can_be_told_apart(tmp_path):
    def patient_id(**elements):
        save(tmp_path / "in.dcm", make(volume()[0], **elements))
        return convert(tmp_path / "in.dcm", tmp_path)[1]["patient_id"]

    ids = [patient_id(PatientID="1"), patient_id(PatientID="2"), patient_id(PatientID="1", IssuerOfPatientID="X")]
    assert len(set(ids)) == 3 and all(len(one) == 12 for one in ids)
    assert patient_id(PatientID="1", PatientName="Doe^John") == ids[0]
    assert patient_id(PatientID=None) == ""


# what is refused


IMAGE = volume()[0]


@pytest.mark.parametrize(
    ("elements", "message"),
    [
        ({"PixelData": None}, "cannot be decoded .*no .?[Pp]ixel [Dd]ata.*copy it again"),
        ({"PixelSpacing": None}, "PixelSpacing must be 2 numbers, got None"),
        ({"PixelSpacing": [0, 1]}, "PixelSpacing must be above 0"),
        ({"Rows": None}, "has no size of an image"),
        ({"ImageOrientationPatient": [1, 0, 0, 1, 0, 0]}, "two orthogonal unit vectors"),
        ({"ImageOrientationPatient": [1, 0, 0]}, "ImageOrientationPatient must be 6 numbers"),
        ({"PhotometricInterpretation": "MONOCHROME1"}, "MONOCHROME2, .* got MONOCHROME1 of 1"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "MONOCHROME2, .* got PALETTE COLOR"),
        ({"PhotometricInterpretation": "RGB", "SamplesPerPixel": 3}, "MONOCHROME2, .* got RGB of 3"),
        ({"PhotometricInterpretation": "YBR_FULL", "SamplesPerPixel": 3}, "got YBR_FULL of 3"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "P", "ND"]}, r"magnitude images are needed, got \['P'\]"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "PHASE MAP"]}, r"magnitude images are needed, got \['PHASE MAP'\]"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "M", "MOSAIC"]}, "mosaic of several.*dcm2niix"),
        ({"NumberOfFrames": 7}, "got 7 frames of 'MR Image Storage'.*dcm2niix"),
        ({"SOPClassUID": EnhancedMRImageStorage}, "got 1 frames of 'Enhanced MR Image Storage'.*dcm2niix"),
        ({"RescaleIntercept": -5000, "RescaleSlope": 1}, r"at least 0, got a minimum of -\d+ .*clip or shift"),
        ({"PixelData": bytes(2 * IMAGE.size)}, "all of its 48 voxels are 0"),
        ({"PixelData": bytes(20)}, "Explicit VR Little Endian.*cannot be decoded.*copy it again"),
        ({"ModalityLUTSequence": [Dataset()]}, "ModalityLUTSequence"),
    ],
)
def test_bad_image_is_refused_by_name(tmp_path, elements, message):
    save(tmp_path / "bad.dcm", make(IMAGE, **elements))
    with pytest.raises(ValueError, match=rf"bad\.dcm.*{message}"):
        convert_dicom(tmp_path / "bad.dcm", tmp_path / "out" / "a.h5")
    assert not (tmp_path / "out").exists()


def test_float_pixels_that_are_not_finite(tmp_path):
    pixels = np.ones((8, 6), dtype="<f4")
    pixels[2, 3] = np.nan
    elements = {"PixelData": None, "BitsAllocated": 32, "BitsStored": None, "HighBit": None}
    save(tmp_path / "bad.dcm", make(IMAGE, FloatPixelData=pixels.tobytes(), **elements, PixelRepresentation=None))
    with pytest.raises(ValueError, match=r"bad\.dcm: 1 of 48 voxels are NaN"):
        convert(tmp_path / "bad.dcm", tmp_path)


@pytest.mark.parametrize(("syntax", "name"), [(JPEG2000Lossless, "JPEG 2000"), (JPEGLSLossless, "JPEG-LS")])
def test_compression_without_a_decoder_is_named(tmp_path, syntax, name):
    dataset = make(IMAGE, syntax=syntax)
    dataset.PixelData = encapsulate([bytes(range(50))])
    dataset["PixelData"].VR = "OB"
    save(tmp_path / "bad.dcm", dataset)
    with pytest.raises(ValueError, match=rf"bad\.dcm.*{name}.*pip install .*gdcmconv"):
        convert(tmp_path / "bad.dcm", tmp_path)


def test_missing_slices(tmp_path):
    source = save_series(tmp_path / "in", volume(6))
    by_height = {pydicom.dcmread(path).ImagePositionPatient[2]: path for path in source.iterdir()}
    before, missing, behind = (by_height[30 + 3 * number] for number in (2, 3, 4))
    missing.unlink()
    message = f"6.000 mm between {before} and {behind} and 3.000 mm elsewhere; find the missing slices"
    with pytest.raises(ValueError, match=message):
        convert(source, tmp_path)


def test_repeated_positions(tmp_path):
    source = save_series(tmp_path / "in", volume(), EchoTime=10)
    for path in sorted(save_series(tmp_path / "second", volume(seed=1), EchoTime=20).iterdir()):
        path.rename(source / f"second-{path.name}")
    with pytest.raises(ValueError, match=r"one image at each position.*got 5 more.*EchoTime \(2 values\)"):
        convert(source, tmp_path)
    copies = save_series(tmp_path / "copies", volume())
    (copies / "copy").write_bytes((copies / "IM002").read_bytes())
    with pytest.raises(
        ValueError, match=r"got 1 more, such as (.*copy and .*IM002|.*IM002 and .*copy).*are they copies"
    ):
        convert(copies, tmp_path)


@pytest.mark.parametrize(
    ("images", "elements", "keyword"),
    [
        (volume(rows=9)[0], {}, "Rows"),
        (volume(cols=7)[0], {}, "Columns"),
        (IMAGE, {"PixelSpacing": [0.7, 1.2]}, "PixelSpacing"),
        (IMAGE, {"orientation": CORONAL}, "ImageOrientationPatient"),
        (IMAGE, {"orientation": None}, "ImageOrientationPatient"),
    ],
)
def test_mixed_images(tmp_path, images, elements, keyword):
    source = save_series(tmp_path / "in", volume())
    save(source / "other", make(images, (-10.5, 20.25, 45), **elements))
    with pytest.raises(ValueError, match=f"one {keyword}, got .* and .* in .*other"):
        convert(source, tmp_path)


def test_positions_off_the_line_and_missing_positions(tmp_path):
    source = save_series(tmp_path / "in", volume())
    save(source / "IM001", make(IMAGE, (-5.5, 20.25, pydicom.dcmread(source / "IM001").ImagePositionPatient[2])))
    with pytest.raises(ValueError, match=r"slices must be on a line, got .* mm off it for .*in.IM\d+"):
        convert(source, tmp_path)
    save(source / "IM001", make(IMAGE, None))
    with pytest.raises(ValueError, match=r"IM001: ImagePositionPatient must be 3 numbers, got None"):
        convert(source, tmp_path)


def test_other_modality_is_warned_of(tmp_path):
    save(tmp_path / "ct.dcm", make(IMAGE, Modality="CT", SOPClassUID=CTImageStorage))
    with pytest.warns(UserWarning, match=r"ct\.dcm: images of modality CT, not MR"):
        assert_same(convert(tmp_path / "ct.dcm", tmp_path)[0], volume()[:1])


def test_folders_without_images(tmp_path):
    with pytest.raises(ValueError, match="none: there is no such file or folder"):
        convert(tmp_path / "none", tmp_path)
    (tmp_path / "in").mkdir()
    with pytest.raises(ValueError, match="in: no DICOM image, only nothing"):
        convert(tmp_path / "in", tmp_path)
    (tmp_path / "in" / "notes.txt").write_text("hello")
    with pytest.raises(ValueError, match=r"in: no DICOM image, only notes\.txt"):
        convert(tmp_path / "in", tmp_path)
    (tmp_path / "in" / "text.dcm").write_text("hello")
    with pytest.raises(ValueError, match=r"text\.dcm is no DICOM file, or it is damaged"):
        convert(tmp_path / "in", tmp_path)


@pytest.mark.filterwarnings("ignore:Invalid value for VR")  # pydicom's
def test_truncated_files_are_refused_at_any_length(tmp_path):
    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, make(IMAGE), enforce_file_format=True)
    content = buffer.getvalue()
    for length in (*range(0, len(content), 7), len(content) - 1):
        (tmp_path / "bad.dcm").write_bytes(content[:length])
        with pytest.raises(ValueError, match=r"bad\.dcm"):
            convert(tmp_path / "bad.dcm", tmp_path)


@pytest.mark.filterwarnings("ignore")  # pydicom's, about invalid values
def test_damaged_files_convert_or_are_refused(tmp_path):
    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, make(IMAGE), enforce_file_format=True)
    content = buffer.getvalue()
    generator = np.random.default_rng(0)
    for _ in range(200):
        damaged = bytearray(content)
        for place in generator.integers(132, len(content), 4):
            damaged[place] = generator.integers(0, 256)
        (tmp_path / "bad.dcm").write_bytes(damaged)
        try:
            convert(tmp_path / "bad.dcm", tmp_path)
        except ValueError as error:
            assert "bad.dcm" in str(error)


def test_is_dicom(tmp_path):
    save(tmp_path / "image", make(IMAGE))
    assert is_dicom(tmp_path / "image")
    (tmp_path / "DICOMDIR").write_bytes((tmp_path / "image").read_bytes())
    (tmp_path / "text").write_text("DICM " * 50)
    (tmp_path / "binary").write_bytes(b"\x08\x00" + bytes(range(200)))
    (tmp_path / "short").write_bytes(b"\x08")
    for name in ("DICOMDIR", "text", "binary", "short", "none", "."):
        assert not is_dicom(tmp_path / name)


def test_without_pydicom(tmp_path, monkeypatch):
    save(tmp_path / "a.dcm", make(IMAGE))
    monkeypatch.setitem(sys.modules, "pydicom", None)
    assert is_dicom(tmp_path / "a.dcm")
    with pytest.raises(ImportError, match=r"pip install 'fastmri-ufloss\[convert\]'"):
        convert_dicom(tmp_path / "a.dcm", tmp_path / "b.h5")
