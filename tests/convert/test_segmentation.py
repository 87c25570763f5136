import itertools
import os

import h5py
import nibabel as nib
import numpy as np
import pytest
from fastmri.data import SliceDataset
from fastmri.data.transforms import center_crop
from helpers import simulate_volume
from PIL import Image

from fastmri_ufloss.convert import segmentation as segmentation_module
from fastmri_ufloss.convert.__main__ import main
from fastmri_ufloss.convert.magnitudes import convert_nifti
from fastmri_ufloss.convert.segmentation import add_segmentation
from fastmri_ufloss.data.index import read_metadata

SHAPE = (3, 10, 8)
TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


def make_volume(path, shape=SHAPE, **options):
    images = np.random.default_rng(0).uniform(0.5, 1.0, shape).astype(np.float32)
    simulate_volume(path, images, num_coils=options.pop("num_coils", 2), **options)
    return path


def draw(shape=SHAPE, seed=1, classes=4):
    """Random labels: they have no symmetry."""
    return np.random.default_rng(seed).integers(0, classes, shape).astype(np.uint8)


def contents(path):
    """All of a volume but its segmentation."""
    with h5py.File(path) as file:
        values = {name: np.asarray(file[name]).tolist() for name in file if name != "segmentation"}
        return {**values, **{f"attribute {name}": str(value) for name, value in file.attrs.items()}}


def read(path):
    with h5py.File(path) as file:
        data = file["segmentation"]
        assert (data.dtype, data.compression) == (np.uint8, "gzip")
        return data[()]


def command(labels, volumes, *words):
    return main(["segmentation", str(labels), "--output_path", str(volumes), *map(str, words)])


def save_images(folder, labels, suffix=".png", kind=np.uint8):
    folder.mkdir(parents=True)
    for number, values in enumerate(labels):
        Image.fromarray(values.astype(kind)).save(folder / f"slice{number + 8}{suffix}")  # 8, 9, 10: numbers count


def save_labels(folder, labels, kind):
    folder.mkdir(parents=True, exist_ok=True)
    if kind in ("npy", "float npy"):
        np.save(folder / "a.npy", labels.astype(np.float64) if kind == "float npy" else labels)
    elif kind == "npz":
        np.savez(folder / "a.npz", labels)
    elif kind == "npz of several":
        np.savez(folder / "a.npz", images=labels + 9, masks=labels, names=np.array(["s"]))
    elif kind == "png":
        save_images(folder / "a", labels)
    elif kind == "16-bit tif":
        save_images(folder / "a", labels, ".tif", np.uint16)
    else:
        folder = folder / "a"
        save_images(folder, labels)
        for path in folder.iterdir():
            image = Image.open(path)
            palette = Image.frombytes("P", image.size, image.tobytes())
            palette.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255, 9, 9, 9])
            palette.save(path)


# formats


@pytest.mark.parametrize("kind", ["npy", "float npy", "npz", "npz of several", "png", "16-bit tif", "palette png"])
def test_labels_of_each_format_become_a_data_set(tmp_path, kind, capsys):
    volume, labels = make_volume(tmp_path / "data" / "a.h5"), draw()
    before = contents(volume)
    save_labels(tmp_path / "labels", labels, kind)
    assert command(tmp_path / "labels", tmp_path / "data") == 0
    np.testing.assert_array_equal(read(volume), labels)
    assert contents(volume) == before
    with h5py.File(volume) as file:
        assert file["segmentation"].attrs["source"] == next((tmp_path / "labels").iterdir()).name
    output = capsys.readouterr()
    assert output.out.startswith("1 volumes of ") and "warning" not in output.err


def test_key(tmp_path, capsys):
    volume, labels = make_volume(tmp_path / "a.h5"), draw()
    np.savez(tmp_path / "a.npz", images=labels + 1, lv_masks=labels)
    assert command(tmp_path / "a.npz", tmp_path) == 1
    assert "got images, lv_masks: name its key" in capsys.readouterr().err
    assert command(tmp_path / "a.npz", tmp_path, "--key", "lv_masks") == 0
    np.testing.assert_array_equal(read(volume), labels)


def test_pickled_labels_are_not_loaded(tmp_path, capsys):
    volume = make_volume(tmp_path / "a.h5")
    np.savez(tmp_path / "a.npz", np.array([{"x": 1}], dtype=object))
    assert command(tmp_path / "a.npz", tmp_path) == 1
    assert "is not a NumPy file of numbers" in capsys.readouterr().err
    assert "segmentation" not in h5py.File(volume)


@pytest.mark.parametrize("mode", ["RGB", "F"])
def test_images_of_colors_and_fractions_are_refused(tmp_path, mode, capsys):
    make_volume(tmp_path / "a.h5", (1, 10, 8))
    (tmp_path / "a").mkdir()
    Image.new(mode, (8, 10)).save(tmp_path / "a" / "0.tif")
    assert command(tmp_path / "a", tmp_path) == 1
    assert f"got Pillow's mode {mode}" in capsys.readouterr().err


def test_single_images_damaged_ones_and_those_of_several_sizes(tmp_path, capsys):
    make_volume(tmp_path / "a.h5")
    save_images(tmp_path / "a", draw())
    assert command(tmp_path / "a" / "slice8.png", tmp_path) == 1
    assert "in a folder that is named as their volume" in capsys.readouterr().err
    Image.new("L", (9, 10)).save(tmp_path / "a" / "slice9.png")
    assert command(tmp_path / "a", tmp_path) == 1
    assert "got (10, 8) and (10, 9)" in capsys.readouterr().err
    (tmp_path / "a" / "slice9.png").write_bytes(b"no image")
    assert command(tmp_path / "a", tmp_path) == 1
    assert "slice9.png is not an image, or it is damaged" in capsys.readouterr().err


# NIfTI


def nifti_affine(angle=0.4):
    """Of axial images (slice, row, column) to LPS, oblique."""
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    affine = np.zeros((4, 4))
    affine[2, 0], affine[1, 1], affine[0, 2] = 3.0, 0.7, 1.1
    affine[:, 3] = -11, 22, -33, 1
    return turn @ affine


def save_nifti(path, values, permutation=(2, 1, 0), flips=(1, 1, 1), affine=None):
    """Axial values in any of the 48 orientations."""
    affine = TO_RAS @ (nifti_affine() if affine is None else affine)
    data, columns, origin = values.transpose(permutation), affine[:, permutation], affine[:, 3].copy()
    for axis, flip in enumerate(flips):
        if flip < 0:
            origin += columns[:, axis] * (data.shape[axis] - 1)
            columns[:, axis] *= -1
            data = np.flip(data, axis)
    path.parent.mkdir(exist_ok=True)
    nib.save(nib.Nifti1Image(data, np.concatenate([columns, origin[:, None]], axis=1)), path)
    return path


@pytest.mark.parametrize("slice_axis", ["axial", "coronal", "sagittal"])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_nifti_labels_of_any_orientation_land_on_their_voxels(tmp_path, slice_axis, suffix):
    # the image itself tells where each voxel has gone: its values are 100 times the label, and noise-free
    labels = draw((4, 6, 5), classes=200) + 1
    image = save_nifti(tmp_path / "image" / "a.nii", labels.astype(np.float32) * 100)
    orders = [*itertools.product(itertools.permutations(range(3)), itertools.product((1, -1), repeat=3))]
    convert_nifti(image, tmp_path / "a.h5", slice_axis=slice_axis, num_coils=None, snr=np.inf)
    with h5py.File(tmp_path / "a.h5") as file:
        expected = np.rint(file["reconstruction_esc"][()] / 100)
    for permutation, flips in orders[:: 1 if suffix == ".nii" else 7]:
        source = save_nifti(tmp_path / "labels" / f"a{suffix}", labels, permutation, flips)
        add_segmentation(source, tmp_path / "a.h5", overwrite=True)
        np.testing.assert_array_equal(read(tmp_path / "a.h5"), expected)


def test_nifti_on_another_grid_is_refused(tmp_path, capsys):
    labels = draw((4, 6, 5))
    convert_nifti(save_nifti(tmp_path / "image" / "a.nii", labels + 1.0), tmp_path / "a.h5", num_coils=None)
    shifted, thinner, turned = nifti_affine(), nifti_affine(), nifti_affine(0.5)
    shifted[0, 3] += 1.0
    thinner[:3, 0] *= 0.9
    for affine in (shifted, thinner, turned):
        source = save_nifti(tmp_path / "labels" / "a.nii", labels, affine=affine)
        assert command(source, tmp_path) == 1
        assert "on the grid of the volume, got an affine that moves a corner by" in capsys.readouterr().err
    rounded = np.round(nifti_affine(), 4)  # as of a program that writes few digits
    assert command(save_nifti(tmp_path / "labels" / "a.nii", labels, affine=rounded), tmp_path) == 0


def test_nifti_needs_a_volume_with_an_affine(tmp_path, capsys):
    for attributes in ({}, {"affine": nifti_affine()}):  # nobody says what the other one's affine means
        make_volume(tmp_path / "a.h5", attributes=attributes)
        assert command(save_nifti(tmp_path / "labels" / "a.nii", draw()), tmp_path) == 1
        assert "has no affine" in capsys.readouterr().err


# values and shapes


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.5, "1 others, such as 0.5"),
        (np.nan, "such as nan"),
        (-1, "such as -1"),
        (256, "such as 256"),
        (np.inf, "such as inf"),
    ],
)
def test_labels_must_be_class_numbers(tmp_path, value, text, capsys):
    volume, labels = make_volume(tmp_path / "a.h5"), draw().astype(np.float64)
    labels[1, 2, 3] = value
    np.save(tmp_path / "a.npy", labels)
    assert command(tmp_path / "a.npy", tmp_path) == 1
    error = capsys.readouterr().err
    assert "integers from 0 to 255" in error and text in error and "a.npy" in error
    assert "segmentation" not in h5py.File(volume)


def test_a_mask_of_0_and_255_becomes_class_1(tmp_path, capsys):
    volume, mask = make_volume(tmp_path / "a.h5"), draw(classes=2)
    np.save(tmp_path / "a.npy", mask * 255)
    assert command(tmp_path / "a.npy", tmp_path) == 0
    np.testing.assert_array_equal(read(volume), mask)
    assert "255 becomes class 1" in capsys.readouterr().err
    mask[0, 0, 0] = 2
    np.save(tmp_path / "a.npy", np.where(mask == 1, 255, mask))
    assert command(tmp_path / "a.npy", tmp_path, "--overwrite") == 0
    assert set(np.unique(read(volume))) == {0, 2, 255}


def test_a_boolean_mask_and_one_slice_without_its_axis(tmp_path):
    volume, mask = make_volume(tmp_path / "a.h5", (1, 10, 8)), draw((10, 8), classes=2).astype(bool)
    np.save(tmp_path / "a.npy", mask)
    assert command(tmp_path / "a.npy", tmp_path) == 0
    np.testing.assert_array_equal(read(volume), mask[None])


@pytest.mark.parametrize(
    ("shape", "advice"), [((3, 10, 9), "resample"), ((2, 10, 8), "resample"), ((10, 8, 3), "bring the axes")]
)
def test_another_shape_is_refused(tmp_path, shape, advice, capsys):
    volume = make_volume(tmp_path / "a.h5")
    before = volume.read_bytes()
    np.save(tmp_path / "a.npy", draw(shape))
    assert command(tmp_path / "a.npy", tmp_path) == 1
    error = capsys.readouterr().err
    assert f"reconstruction_rss in {volume}, {SHAPE}, got {shape}; {advice}" in error
    assert volume.read_bytes() == before


@pytest.mark.parametrize("size", [(7, 6), (6, 5)])
def test_labels_of_the_size_of_kspace_are_cropped_as_fastmri_crops(tmp_path, size, capsys):
    volume, labels = make_volume(tmp_path / "a.h5", recon_size=size), draw()
    np.save(tmp_path / "a.npy", labels)
    assert command(tmp_path / "a.npy", tmp_path) == 0
    np.testing.assert_array_equal(read(volume), center_crop(labels, size))
    assert "cropped" in capsys.readouterr().err


def test_an_undersampled_volume_is_refused(tmp_path, capsys):
    make_volume(tmp_path / "a.h5", mask=np.arange(8) % 2 == 0)
    np.save(tmp_path / "a.npy", draw())
    assert command(tmp_path / "a.npy", tmp_path) == 1
    assert "has no reconstruction whose pixels could get labels" in capsys.readouterr().err


# which labels, which volumes


def test_volumes_of_all_splits_and_what_lacks_its_partner(tmp_path, capsys):
    for folder in ("multicoil_train", "singlecoil_train"):
        make_volume(tmp_path / "data" / folder / "a.h5", num_coils=None if folder[0] == "s" else 2)
    make_volume(tmp_path / "data" / "multicoil_val" / "b.h5")
    (tmp_path / "labels").mkdir()
    for name in ("a", "lost"):
        np.save(tmp_path / "labels" / f"{name}.npy", draw())
    assert command(tmp_path / "labels", tmp_path / "data") == 1
    for folder in ("multicoil_train", "singlecoil_train"):
        np.testing.assert_array_equal(read(tmp_path / "data" / folder / "a.h5"), draw())
    output = capsys.readouterr()
    assert "there is no volume lost.h5" in output.err and "1 of 3 failed" in output.err
    assert "note: 1 volumes in" in output.out
    assert "segmentation" not in h5py.File(tmp_path / "data" / "multicoil_val" / "b.h5")


def test_nothing_is_done_where_it_is_unclear_what_is_meant(tmp_path, capsys):
    volume = make_volume(tmp_path / "data" / "a.h5")
    (tmp_path / "labels").mkdir()
    assert command(tmp_path / "labels", tmp_path / "data") == 1
    assert "must be labels" in capsys.readouterr().err
    np.save(tmp_path / "labels" / "a.npy", draw())
    np.savez(tmp_path / "labels" / "a.npz", draw(seed=2))
    assert command(tmp_path / "labels", tmp_path / "data") == 1
    assert "are both for a.h5" in capsys.readouterr().err
    Image.new("L", (8, 10)).save(tmp_path / "labels" / "x.png")
    assert command(tmp_path / "labels", tmp_path / "data") == 1
    assert "got both" in capsys.readouterr().err
    assert command(tmp_path / "labels" / "a.npy", tmp_path / "labels") == 1
    assert "output_path must have volumes" in capsys.readouterr().err
    assert command(tmp_path / "nowhere", tmp_path / "data") == 1
    assert "no file or folder" in capsys.readouterr().err
    assert "segmentation" not in h5py.File(volume)


def test_a_failure_does_not_stop_the_others(tmp_path, capsys):
    volumes = [make_volume(tmp_path / f"{name}.h5") for name in "abc"]
    for name in "ac":
        np.save(tmp_path / f"{name}.npy", draw())
    (tmp_path / "b.npy").write_bytes(b"broken")
    assert command(tmp_path, tmp_path) == 1
    for volume, has in zip(volumes, (True, False, True), strict=True):
        assert ("segmentation" in h5py.File(volume)) == has
    assert "error: 1 of 3 failed" in capsys.readouterr().err


# done once, and never by halves


def test_the_same_is_kept_and_another_is_refused_unless_overwritten(tmp_path, capsys):
    volume = make_volume(tmp_path / "a.h5")
    make_volume(tmp_path / "b.h5")
    np.save(tmp_path / "a.npy", draw())
    assert command(tmp_path / "a.npy", tmp_path) == 0
    before, kspace = volume.stat(), contents(volume)
    np.save(tmp_path / "b.npy", draw())
    capsys.readouterr()
    assert command(tmp_path, tmp_path) == 0
    assert capsys.readouterr().out.startswith("1 of 2 are done\n1 volumes of ")
    assert (volume.stat().st_ino, volume.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    np.save(tmp_path / "a.npy", draw(seed=5))
    assert command(tmp_path, tmp_path) == 1
    assert "has another segmentation already: overwrite it" in capsys.readouterr().err
    np.testing.assert_array_equal(read(volume), draw())
    assert command(tmp_path, tmp_path, "--overwrite") == 0
    np.testing.assert_array_equal(read(volume), draw(seed=5))
    assert contents(volume) == kspace


@pytest.mark.parametrize("error", [RuntimeError("broken"), KeyboardInterrupt()])
def test_a_volume_is_never_half_written(tmp_path, monkeypatch, error, capsys):
    volume = make_volume(tmp_path / "a.h5")
    before = volume.read_bytes()
    np.save(tmp_path / "a.npy", draw())

    class Broken(h5py.File):
        def create_dataset(self, *args, **options):
            super().create_dataset(*args, **options)
            self.flush()
            raise error

    with monkeypatch.context() as patch:
        patch.setattr(segmentation_module.h5py, "File", Broken)
        assert command(tmp_path / "a.npy", tmp_path) == (130 if isinstance(error, KeyboardInterrupt) else 1)
    assert volume.read_bytes() == before
    assert sorted(os.listdir(tmp_path)) == ["a.h5", "a.npy"]
    assert ("goes on" in capsys.readouterr().err) == isinstance(error, KeyboardInterrupt)
    assert command(tmp_path / "a.npy", tmp_path) == 0
    np.testing.assert_array_equal(read(volume), draw())


def test_a_full_disk_ends_it(tmp_path, monkeypatch, capsys):
    for name in "ab":
        make_volume(tmp_path / f"{name}.h5")
        np.save(tmp_path / f"{name}.npy", draw())

    def copy(source, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(segmentation_module.shutil, "copyfile", copy)
    assert command(tmp_path, tmp_path) == 1
    error = capsys.readouterr().err
    assert "no space is left in" in error and "the 2 volumes that are missing" in error


def test_permissions_stay_and_the_target_of_a_link_is_left_alone(tmp_path):
    original = make_volume(tmp_path / "original" / "a.h5")
    original.chmod(0o640)
    before = original.read_bytes()
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.h5").symlink_to(original)
    np.save(tmp_path / "a.npy", draw())
    assert command(tmp_path / "a.npy", tmp_path / "data") == 0
    np.testing.assert_array_equal(read(tmp_path / "data" / "a.h5"), draw())
    assert (tmp_path / "data" / "a.h5").stat().st_mode & 0o777 == 0o640
    assert original.read_bytes() == before


def test_fastmri_reads_the_volume_as_before(tmp_path):
    volume = make_volume(tmp_path / "a.h5")
    facts, before = read_metadata(volume, "multicoil"), list(SliceDataset(tmp_path, "multicoil"))
    (tmp_path / "labels").mkdir()
    np.save(tmp_path / "labels" / "a.npy", draw())
    assert command(tmp_path / "labels", tmp_path) == 0
    assert read_metadata(volume, "multicoil") == facts
    (tmp_path / "labels" / "a.npy").unlink()
    (tmp_path / "labels").rmdir()
    after = list(SliceDataset(tmp_path, "multicoil"))
    assert len(after) == len(before) == SHAPE[0]
    for first, second in zip(before, after, strict=True):
        np.testing.assert_array_equal(first[0], second[0])
        np.testing.assert_array_equal(first[2], second[2])
        assert first[4:] == second[4:]
