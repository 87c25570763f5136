import os
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from fastmri_ufloss.data.patches import MARGIN, PatchDataset, PatchSettings, patch_file_name, write_volume_patches

SETTINGS = PatchSettings(patch_size=12, patches_per_slice=5, seed=0)


def volume(slices=3, rows=30, cols=26, seed=0):
    generator = np.random.default_rng(seed)
    shape = (slices, rows, cols)
    return (generator.standard_normal(shape) + 1j * generator.standard_normal(shape)).astype(np.complex64)


def write(folder, name="a.h5", images=None, **changes):
    images = volume() if images is None else images
    path = folder / f"{name}.npy"
    return write_volume_patches(path, images, replace(SETTINGS, **changes), volume_name=name)


def is_window(image, patch):
    """Whether a patch is found somewhere in an image, by its upper left value."""
    size = patch.shape[-1]
    windows = np.lib.stride_tricks.sliding_window_view(image, (size, size))
    return bool((np.abs(windows - patch).max(axis=(2, 3)) < 2e-2).any())


def test_patches_are_windows_of_the_scaled_images(tmp_path):
    images = volume() * 1e-4
    data = PatchDataset([write(tmp_path, images=images)])
    assert (len(data), *data.patch_shape) == (15, 2, 12 + 2 * MARGIN, 12 + 2 * MARGIN)
    for number in (0, 7, 14):
        patch, index = data[number]
        assert index == number
        assert patch.dtype == torch.float32 and patch.shape == (2, 12 + 2 * MARGIN, 12 + 2 * MARGIN)
        image = images[number // 5]
        scale = np.quantile(np.abs(image), 0.95, method="inverted_cdf")
        assert is_window(image / scale, patch[0].numpy() + 1j * patch[1].numpy())


def test_magnitude_images_have_one_channel(tmp_path):
    data = PatchDataset([write(tmp_path, images=[torch.from_numpy(image).abs() for image in volume()])])
    patch, _ = data[3]
    assert data.patch_shape[0] == 1 and float(patch.min()) >= 0


def test_places_depend_on_seed_volume_and_slice_only(tmp_path):
    same = np.repeat(volume(1), 2, axis=0)
    first = np.load(write(tmp_path, images=same))
    again = np.load(write_volume_patches(tmp_path / "other.npy", same, SETTINGS, volume_name="a.h5"))
    assert np.array_equal(first, again)
    alone = write_volume_patches(tmp_path / "alone.npy", same[:1], SETTINGS, volume_name="a.h5")
    assert np.array_equal(first[:5], np.load(alone))
    assert not np.array_equal(first[:5], first[5:])
    assert not np.array_equal(first, np.load(write(tmp_path, "b.h5", images=same)))
    seeded = write_volume_patches(tmp_path / "seed.npy", same, replace(SETTINGS, seed=1), volume_name="a.h5")
    assert not np.array_equal(first, np.load(seeded))


def test_a_file_that_exists_is_neither_read_for_nor_written_again(tmp_path):
    path = write(tmp_path)
    before = path.stat().st_mtime_ns

    def images():
        raise RuntimeError("read")
        yield

    assert write(tmp_path, images=images()) == path
    assert path.stat().st_mtime_ns == before


def test_a_writer_that_fails_leaves_nothing(tmp_path):
    def images():
        yield volume(1)[0]
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        write(tmp_path, images=images())
    assert list(tmp_path.iterdir()) == []


def test_the_file_name_changes_with_all_its_content_depends_on(tmp_path):
    path = tmp_path / "file1.h5"
    path.write_bytes(b"1234")
    name = patch_file_name(path, SETTINGS, in_chans=2)
    assert name.startswith("file1-") and name.endswith(".npy")
    assert patch_file_name(path, SETTINGS, in_chans=2) == name
    changes = [{"patch_size": 40}, {"patches_per_slice": 20}, {"seed": 1}]
    names = [patch_file_name(path, replace(SETTINGS, **change), in_chans=2) for change in changes]
    names.append(patch_file_name(path, SETTINGS, in_chans=1))
    names.append(patch_file_name(path, SETTINGS, in_chans=2, source="rss"))
    os.utime(path, ns=(0, 0))
    names.append(patch_file_name(path, SETTINGS, in_chans=2))
    path.write_bytes(b"12345")
    os.utime(path, ns=(0, 0))
    names.append(patch_file_name(path, SETTINGS, in_chans=2))
    assert len({name, *names}) == 8


def test_numbers_run_through_the_files_in_the_given_order(tmp_path):
    files = [write(tmp_path, "b.h5", volume(2, seed=1)), write(tmp_path, "a.h5", volume(1, seed=2))]
    data = PatchDataset(files)
    stored = np.concatenate([np.load(file) for file in files]).astype(np.float32)
    assert len(data) == len(stored) == 15
    for number in range(15):
        assert np.array_equal(data[number][0].numpy(), stored[number])
    assert data[-1][1] == 14
    assert sorted(i for _, i in data) == list(range(15))


def test_workers_read_the_same_patches(tmp_path):
    data = PatchDataset([write(tmp_path)])
    batches = list(DataLoader(data, batch_size=4, num_workers=2))
    assert torch.equal(torch.cat([i for _, i in batches]), torch.arange(15))
    assert torch.equal(torch.cat([p for p, _ in batches])[6], data[6][0])


def test_an_image_with_room_for_the_patch_only_is_reflected(tmp_path):
    images = volume(1, rows=12, cols=30)
    data = PatchDataset([write(tmp_path, images=images)])
    image = np.pad(images[0], ((MARGIN, MARGIN), (0, 0)), mode="reflect")
    patch, _ = data[0]
    scale = np.quantile(np.abs(images[0]), 0.95, method="inverted_cdf")
    assert is_window(image / scale, patch[0].numpy() + 1j * patch[1].numpy())


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ([], "at least one image"),
        (volume(rows=11), r"patch of 12x12, got 11x26 at image 0 of a\.h5"),
        (volume()[None], r"images must be \(rows, cols\), got \(3, 30, 26\)"),
        ([volume()[0], np.abs(volume()[0])], "all complex or all real, got another kind at image 1"),
        (volume() * np.nan, "images must be finite"),
    ],
)
def test_images_that_do_not_fit(tmp_path, images, message):
    with pytest.raises(ValueError, match=message):
        write(tmp_path, images=images)
    assert list(tmp_path.iterdir()) == []


def test_an_image_that_float16_cannot_hold(tmp_path):
    image = np.full((30, 26), 1e-9, dtype=np.float32)
    image[0, 0] = 1.0
    with pytest.raises(ValueError, match="range of float16"):
        write(tmp_path, images=[image])


def test_settings_below_one(tmp_path):
    with pytest.raises(ValueError, match="patch_size and patches_per_slice"):
        write(tmp_path, patches_per_slice=0)


def test_files_that_do_not_belong_together(tmp_path):
    good = write(tmp_path)
    with pytest.raises(ValueError, match="at least one patch file"):
        PatchDataset([])
    with pytest.raises(FileNotFoundError):
        PatchDataset([tmp_path / "none.npy"])
    with pytest.raises(ValueError, match="files must be alike in the shape of a patch"):
        PatchDataset([good, write(tmp_path, "b.h5", patch_size=10)])
    np.save(tmp_path / "float.npy", np.zeros((2, 2, 16, 16), dtype=np.float32))
    with pytest.raises(ValueError, match="must hold float16 patches"):
        PatchDataset([tmp_path / "float.npy"])
    (tmp_path / "text.npy").write_text("hello")
    with pytest.raises(ValueError, match="must be a patch file"):
        PatchDataset([tmp_path / "text.npy"])
    with pytest.raises(IndexError, match=r"index must be in 0 \.\. 14, got 15"):
        PatchDataset([good])[15]
