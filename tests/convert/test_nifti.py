import gzip
import itertools
import sys
import xml.etree.ElementTree as etree

import fastmri
import h5py
import nibabel as nib
import numpy as np
import pytest
import torch
from fastmri.data import SliceDataset

from fastmri_ufloss.convert.magnitudes import convert_nifti
from fastmri_ufloss.data.index import read_metadata

SPACING = np.array([3.0, 0.7, 1.1])  # of slices, rows, columns of axial images
TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
EXACT = {"num_coils": None, "snr": np.inf}


def volume(shape=(5, 8, 6), seed=0):
    """Axial images, from feet to head, rows to the back, columns to the left."""
    return np.random.default_rng(seed).uniform(1, 1000, shape).astype(np.float32)


def axial_affine():
    """Of `volume`, to LPS."""
    affine = np.zeros((4, 4))
    affine[2, 0], affine[1, 1], affine[0, 2] = SPACING
    affine[:, 3] = -11, 22, -33, 1
    return affine


def stored(images, permutation=(2, 1, 0), flips=(1, 1, 1), affine=None):
    """Voxels and affine to RAS of a file with axial images in any of the 48 orientations."""
    affine = TO_RAS @ (axial_affine() if affine is None else affine)
    data, columns, origin = images.transpose(permutation), affine[:, permutation], affine[:, 3].copy()
    for axis, flip in enumerate(flips):
        if flip < 0:
            origin += columns[:, axis] * (data.shape[axis] - 1)
            columns[:, axis] *= -1
            data = np.flip(data, axis)
    return data, np.concatenate([columns, origin[:, None]], axis=1)


def save(path, images, affine=None, **options):
    data, to_ras = stored(images, affine=affine, **options)
    nib.save(nib.Nifti1Image(data, to_ras), path)
    return path


def read(path):
    """Magnitude images of the k-space with fastMRI's own transform, and the attributes."""
    with h5py.File(path) as file:
        kspace, attributes = file["kspace"][()], dict(file.attrs)
    images = torch.view_as_complex(fastmri.ifft2c(torch.view_as_real(torch.from_numpy(kspace)))).abs().numpy()
    return images, attributes


def assert_same(got, expected):
    assert got.shape == expected.shape
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max() / 10)


def position(affine, voxel):
    return (affine @ [*voxel, 1])[:3]


# orientation


def test_all_orientations_give_the_same_axial_images(tmp_path):
    images = volume()
    for permutation in itertools.permutations(range(3)):
        for flips in itertools.product((1, -1), repeat=3):
            save(tmp_path / "a.nii", images, permutation=permutation, flips=flips)
            convert_nifti(tmp_path / "a.nii", tmp_path / "a.h5", **EXACT)
            got, attributes = read(tmp_path / "a.h5")
            assert_same(got, images)
            np.testing.assert_allclose(attributes["affine"], axial_affine(), atol=1e-4)


@pytest.mark.parametrize(
    ("slice_axis", "orientation", "voxel", "sizes"),
    # where the axial voxel (s, r, c) of a volume of (5, 8, 6) goes, and (row, column, slice) spacing
    [
        ("axial", "SPL", lambda s, r, c: (s, r, c), (0.7, 1.1, 3.0)),
        ("coronal", "PIL", lambda s, r, c: (r, 4 - s, c), (3.0, 1.1, 0.7)),
        ("sagittal", "LIP", lambda s, r, c: (c, 4 - s, r), (3.0, 0.7, 1.1)),
    ],
)
@pytest.mark.parametrize("flips", [(1, 1, 1), (-1, 1, -1)])
@pytest.mark.parametrize("permutation", [(2, 1, 0), (1, 0, 2)])
def test_slice_axis(tmp_path, slice_axis, orientation, voxel, sizes, flips, permutation):
    images = volume()
    save(tmp_path / "a.nii.gz", images, permutation=permutation, flips=flips)
    convert_nifti(tmp_path / "a.nii.gz", tmp_path / "a.h5", slice_axis=slice_axis, **EXACT)
    got, attributes = read(tmp_path / "a.h5")
    assert (attributes["orientation"], attributes["slice_axis"]) == (orientation, slice_axis)
    for axial in [(0, 0, 0), (1, 2, 3), (4, 7, 5), (3, 0, 1)]:
        new = voxel(*axial)
        assert got[new] == pytest.approx(images[axial], rel=1e-5)
        expected = position(axial_affine(), axial)
        np.testing.assert_allclose(position(attributes["affine"], new), expected, atol=1e-4)
    with h5py.File(tmp_path / "a.h5") as file:
        header = etree.fromstring(file["ismrmrd_header"][()])
    field = header.find("{*}encoding/{*}encodedSpace/{*}fieldOfView_mm")
    rows, cols = got.shape[1:]
    expected = (rows * sizes[0], cols * sizes[1], sizes[2])
    np.testing.assert_allclose([float(size.text) for size in field], expected, rtol=1e-5)


def test_oblique_volume_gets_the_closest_axes_and_its_own_affine(tmp_path):
    angle = np.radians(25)
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    turn[1:3, 1:3] = turn[1:3, 1:3] @ [[np.cos(0.2), -np.sin(0.2)], [np.sin(0.2), np.cos(0.2)]]
    images, affine = volume(), turn @ axial_affine()
    save(tmp_path / "a.nii", images, affine=affine, permutation=(1, 2, 0), flips=(-1, 1, -1))
    convert_nifti(tmp_path / "a.nii", tmp_path / "a.h5", **EXACT)
    got, attributes = read(tmp_path / "a.h5")
    assert_same(got, images)
    np.testing.assert_allclose(attributes["affine"], affine, atol=1e-4)


def test_the_way_back_to_nifti(tmp_path):
    save(tmp_path / "a.nii", volume(), permutation=(1, 2, 0), flips=(-1, 1, -1))
    convert_nifti(tmp_path / "a.nii", tmp_path / "a.h5", slice_axis="sagittal", **EXACT)
    got, attributes = read(tmp_path / "a.h5")
    back = nib.as_closest_canonical(nib.Nifti1Image(got, TO_RAS @ attributes["affine"]))
    original = nib.as_closest_canonical(nib.load(tmp_path / "a.nii"))
    assert_same(back.get_fdata(), original.get_fdata())
    np.testing.assert_allclose(back.affine, original.affine, atol=1e-4)


def test_qform_units_and_missing_orientation(tmp_path):
    data, affine = stored(volume())
    image = nib.Nifti1Image(data, None)
    image.set_qform(affine, code=1)
    image.header.set_xyzt_units("mm")
    nib.save(image, tmp_path / "q.nii")
    convert_nifti(tmp_path / "q.nii", tmp_path / "q.h5", **EXACT)
    got, attributes = read(tmp_path / "q.h5")
    assert_same(got, volume())
    assert attributes["affine_source"] == "qform"
    np.testing.assert_allclose(attributes["affine"], axial_affine(), atol=1e-4)

    metres = nib.Nifti1Image(data, np.diag([1e-3, 1e-3, 1e-3, 1]) @ affine)
    metres.header.set_xyzt_units("meter")
    nib.save(metres, tmp_path / "m.nii")
    convert_nifti(tmp_path / "m.nii", tmp_path / "m.h5", **EXACT)
    np.testing.assert_allclose(read(tmp_path / "m.h5")[1]["affine"], axial_affine(), atol=1e-4)

    image.set_qform(None)
    nib.save(image, tmp_path / "n.nii")
    with pytest.warns(UserWarning, match=r"n\.nii: no orientation"):
        convert_nifti(tmp_path / "n.nii", tmp_path / "n.h5", **EXACT)
    got, attributes = read(tmp_path / "n.h5")
    assert attributes["affine_source"] == "none"
    assert_same(got, np.flip(data.transpose(2, 1, 0), axis=1))  # the file's axes are taken as L, A, S


# values


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int32, np.float64])
@pytest.mark.parametrize(("slope", "intercept"), [(None, None), (0.37, 12.5)])
def test_values_after_slope_and_intercept(tmp_path, dtype, slope, intercept):
    raw = np.random.default_rng(1).integers(0, 200, (5, 8, 6)).astype(dtype)
    data, affine = stored(raw)
    image = nib.Nifti1Image(data, affine, dtype=dtype)
    nib.save(image, tmp_path / "a.nii")
    if slope is not None:  # nibabel would scale the values back; write the header's fields
        content = bytearray((tmp_path / "a.nii").read_bytes())
        content[112:120] = np.array([slope, intercept], dtype="<f4").tobytes()
        (tmp_path / "a.nii").write_bytes(content)
    convert_nifti(tmp_path / "a.nii", tmp_path / "a.h5", **EXACT)
    expected = raw.astype(np.float64) * (slope or 1) + (intercept or 0)
    assert_same(read(tmp_path / "a.h5")[0], expected)


def test_multicoil_volume_opens_in_fastmri(tmp_path):
    images = volume()
    save(tmp_path / "in.nii", images)
    convert_nifti(tmp_path / "in.nii", tmp_path / "data" / "a.h5", snr=np.inf, acquisition="AXT2")
    data = SliceDataset(tmp_path / "data", "multicoil")
    assert len(data) == 5
    kspace, _, target, attributes, _, _ = data[3]
    assert kspace.shape == (8, 8, 6)
    assert_same(target, images[3])
    assert (attributes["acquisition"], attributes["patient_id"]) == ("AXT2", "")
    known = read_metadata(tmp_path / "data" / "a.h5", "multicoil")
    assert known["kspace_shape"] == [5, 8, 8, 6] and known["simulated_seed"] == 0
    np.testing.assert_allclose(known["affine"], axial_affine(), atol=1e-4)


def test_noise_level(tmp_path):
    images = volume((2, 64, 48))
    save(tmp_path / "a.nii", images)
    for name, snr in (("clean", np.inf), ("noisy", 20)):
        convert_nifti(tmp_path / "a.nii", tmp_path / f"{name}.h5", snr=snr, num_coils=4)
    with h5py.File(tmp_path / "clean.h5") as clean, h5py.File(tmp_path / "noisy.h5") as noisy:
        noise = noisy["kspace"][()] - clean["kspace"][()]
        assert noisy.attrs["simulated_snr"] == 20
    mean = images[images > 0.1 * images.max()].mean()
    assert mean / np.sqrt((np.abs(noise) ** 2).mean()) == pytest.approx(20, rel=0.03)


def test_options_change_the_volume(tmp_path):
    save(tmp_path / "a.nii", volume((2, 16, 12)))

    def kspace(**options):
        convert_nifti(tmp_path / "a.nii", tmp_path / "a.h5", **options)
        with h5py.File(tmp_path / "a.h5") as file:
            return file["kspace"][()]

    plain = kspace()
    assert np.array_equal(plain, kspace())
    for options in ({"snr": 5.0}, {"phase_strength": 0.2}, {"seed": 1}):
        assert np.abs(kspace(**options) - plain).max() > 1, options
    assert kspace(num_coils=3).shape == (2, 3, 16, 12)
    convert_nifti(tmp_path / "a.nii", tmp_path / "a.h5", attributes={"site": "x", "orientation": "mine"})
    attributes = read(tmp_path / "a.h5")[1]
    assert (attributes["site"], attributes["orientation"], attributes["acquisition"]) == ("x", "mine", "UNKNOWN")


def test_nothing_of_the_description_is_copied(tmp_path):
    image = nib.Nifti1Image(*stored(volume()))
    for field in ("descrip", "aux_file", "intent_name", "db_name"):
        image.header[field] = b"Jane Roe"
    nib.save(image, tmp_path / "a.nii")
    assert b"Jane Roe" in (tmp_path / "a.nii").read_bytes()
    convert_nifti(tmp_path / "a.nii", tmp_path / "a.h5")
    assert b"Jane" not in (tmp_path / "a.h5").read_bytes()


# shapes


def test_one_slice_and_one_volume_in_four_dimensions(tmp_path):
    images = volume((1, 8, 6))
    data, affine = stored(images)
    nib.save(nib.Nifti1Image(data[..., 0], affine), tmp_path / "2d.nii")
    nib.save(nib.Nifti1Image(data[..., None], affine), tmp_path / "4d.nii")
    thin = nib.Nifti1Image(data[..., 0], None)  # without a direction of the slices
    thin.header["sform_code"] = 1
    thin.header["srow_x"][:2], thin.header["srow_y"][:2] = affine[:2, :2]
    nib.save(thin, tmp_path / "thin.nii")
    for name in ("2d", "4d", "thin"):
        convert_nifti(tmp_path / f"{name}.nii", tmp_path / f"{name}.h5", **EXACT)
        assert_same(read(tmp_path / f"{name}.h5")[0], images)
    with pytest.raises(ValueError, match="choose another slice_axis"):
        convert_nifti(tmp_path / "2d.nii", tmp_path / "b.h5", slice_axis="coronal")


def test_constant_volume(tmp_path):
    save(tmp_path / "a.nii", np.full((3, 8, 6), 7, dtype=np.float32))
    convert_nifti(tmp_path / "a.nii", tmp_path / "a.h5", **EXACT)
    assert_same(read(tmp_path / "a.h5")[0], np.full((3, 8, 6), 7.0))


# what is refused

BASE = np.ones((4, 5, 6), dtype=np.float32)
RGB = np.zeros((4, 5, 6), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])


def with_value(value):
    values = BASE.copy()
    values[1, 2, 3] = value
    return values


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.ones((4, 5, 6, 2), dtype=np.float32), r"one volume, .* \(4, 5, 6, 2\).*slicer"),
        (np.ones(4, dtype=np.float32), r"two or three dimensions, got the shape \(4,\)"),
        (BASE.astype(np.complex64), "real magnitudes, got complex64 ones"),
        (RGB, "real magnitudes, got color ones"),
        (with_value(np.nan), "1 of 120 voxels are NaN or infinite"),
        (with_value(np.inf), "1 of 120 voxels are NaN or infinite"),
        (with_value(-1024), "at least 0, got a minimum of -1024 .*clip or shift"),
        (0 * BASE, "all of its 120 voxels are 0"),
        (np.ones((1, 1, 9), dtype=np.float32), r"at least 2 rows and 2 columns, got \(1, 1\)"),
    ],
)
def test_bad_volume_is_refused_by_name(tmp_path, values, message):
    nib.save(nib.Nifti1Image(values, np.eye(4)), tmp_path / "bad.nii")
    with pytest.raises(ValueError, match=rf"bad\.nii.*{message}"):
        convert_nifti(tmp_path / "bad.nii", tmp_path / "out" / "a.h5")
    assert not (tmp_path / "out").exists()


def test_values_beyond_float32_are_refused(tmp_path):
    nib.save(nib.Nifti1Image(np.full((4, 5, 6), 1e300), np.eye(4)), tmp_path / "bad.nii")
    with pytest.raises(ValueError, match=r"bad\.nii: 120 of 120 voxels are NaN or infinite in float32"):
        convert_nifti(tmp_path / "bad.nii", tmp_path / "a.h5")


def test_singular_affine_is_refused(tmp_path):
    affine = np.diag([1.0, 1.0, 1.0, 1.0])
    affine[:3, 1] = affine[:3, 0]
    nib.save(nib.Nifti1Image(BASE, affine), tmp_path / "bad.nii")
    with pytest.raises(ValueError, match=r"bad\.nii: the affine must be of three independent axes"):
        convert_nifti(tmp_path / "bad.nii", tmp_path / "a.h5")


@pytest.mark.parametrize("name", ["bad.nii", "bad.nii.gz"])
@pytest.mark.parametrize("part", [0, 0.01, 0.3, 0.6, 0.9, 0.999])
def test_truncated_file(tmp_path, name, part):
    save(tmp_path / name, volume((6, 16, 20)))
    content = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(content[: int(part * len(content))])
    with pytest.raises(ValueError, match=rf"{name} is no NIfTI file .* or it is damaged or truncated"):
        convert_nifti(tmp_path / name, tmp_path / "a.h5")
    assert not (tmp_path / "a.h5").exists()


def test_other_files(tmp_path):
    (tmp_path / "text.nii").write_text("no image " * 100)
    with gzip.open(tmp_path / "text.nii.gz", "wb") as file:
        file.write(b"no image " * 100)
    nib.save(nib.MGHImage(BASE, np.eye(4)), tmp_path / "a.mgz")
    (tmp_path / "folder.nii").mkdir()
    for name in ("text.nii", "text.nii.gz", "a.mgz", "folder.nii"):
        with pytest.raises(ValueError, match=f"{name} is no NIfTI file"):
            convert_nifti(tmp_path / name, tmp_path / "a.h5")
    with pytest.raises(ValueError, match=r"none\.nii is no NIfTI file .*No such file"):
        convert_nifti(tmp_path / "none.nii", tmp_path / "a.h5")


@pytest.mark.filterwarnings("ignore:.*no orientation")
def test_damaged_headers_convert_or_are_refused(tmp_path):
    save(tmp_path / "good.nii", volume())
    content = (tmp_path / "good.nii").read_bytes()
    generator = np.random.default_rng(0)
    for _ in range(100):
        damaged = bytearray(content)
        for place in generator.integers(0, 348, 3):
            damaged[place] = generator.integers(0, 256)
        (tmp_path / "bad.nii").write_bytes(damaged)
        try:
            convert_nifti(tmp_path / "bad.nii", tmp_path / "a.h5", num_coils=None)
        except ValueError as error:
            assert "bad.nii" in str(error)


@pytest.mark.parametrize(
    ("name", "options"),
    [("slice_axis", {"slice_axis": "radial"}), ("num_coils", {"num_coils": 0}), ("snr", {"snr": -1.0})],
)
def test_bad_options_are_named(tmp_path, name, options):
    save(tmp_path / "a.nii", volume())
    with pytest.raises(ValueError, match=f"{name} must be"):
        convert_nifti(tmp_path / "a.nii", tmp_path / "a.h5", **options)
    assert not (tmp_path / "a.h5").exists()


def test_a_failed_conversion_keeps_the_old_volume(tmp_path):
    save(tmp_path / "a.nii", volume())
    convert_nifti(tmp_path / "a.nii", tmp_path / "a.h5")
    before = (tmp_path / "a.h5").read_bytes()
    with pytest.raises(TypeError):
        convert_nifti(tmp_path / "a.nii", tmp_path / "a.h5", attributes={"zzz": object()})
    assert (tmp_path / "a.h5").read_bytes() == before


def test_without_nibabel(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "nibabel", None)
    with pytest.raises(ImportError, match=r"pip install 'fastmri-ufloss\[convert\]'"):
        convert_nifti(tmp_path / "a.nii", tmp_path / "a.h5")
