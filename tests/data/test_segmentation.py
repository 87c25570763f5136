import pickle

import h5py
import numpy as np
import pytest
import torch
from helpers import simulate_volume
from torch.utils.data import DataLoader

from fastmri_ufloss.data import SegmentationSlices
from fastmri_ufloss.data.loading import EqualSizeBatches
from fastmri_ufloss.data.segmentation import find_reconstruction

SHAPES = {"a": (3, 10, 8), "b": (2, 12, 8)}


def make_volume(path, shape, labels=None, **options):
    images = np.random.default_rng(shape[1]).uniform(1e-5, 2e-4, shape).astype(np.float32)
    datasets = {} if labels is None else {"segmentation": labels}
    simulate_volume(path, images, num_coils=options.pop("num_coils", 2), datasets=datasets, **options)


def draw(shape):
    labels = np.random.default_rng(shape[0]).integers(0, 4, shape).astype(np.uint8)
    labels[1] = 0
    return labels


@pytest.fixture
def folder(tmp_path):
    for name, shape in SHAPES.items():
        make_volume(tmp_path / f"{name}.h5", shape, draw(shape))
    return tmp_path


def test_items_are_what_the_volumes_hold(folder):
    data = SegmentationSlices(folder)
    assert len(data) == 5 and data.num_classes == 4
    assert data.sizes == [(10, 8)] * 3 + [(12, 8)] * 2
    for index, (name, number) in enumerate([*(("a", n) for n in range(3)), *(("b", n) for n in range(2))]):
        sample = data[index]
        assert (sample.fname, sample.slice_num) == (f"{name}.h5", number)
        assert (sample.image.dtype, sample.segmentation.dtype) == (torch.float32, torch.int64)
        with h5py.File(folder / f"{name}.h5") as volume:
            np.testing.assert_array_equal(sample.image, volume["reconstruction_rss"][number][None])
        np.testing.assert_array_equal(sample.segmentation, draw(SHAPES[name])[number])


def test_only_with_classes_leaves_out_slices_of_background(folder):
    data = SegmentationSlices(folder, only_with_classes=True)
    assert [(sample.fname, sample.slice_num) for sample in map(data.__getitem__, range(len(data)))] == [
        ("a.h5", 0),
        ("a.h5", 2),
        ("b.h5", 0),
    ]
    assert data.sizes == [(10, 8), (10, 8), (12, 8)] and data.num_classes == 4


def test_num_classes_is_that_of_the_highest_class(folder):
    with h5py.File(folder / "b.h5", "r+") as volume:
        volume["segmentation"][1, 2, 3] = 9
    assert SegmentationSlices(folder).num_classes == 10


def test_kspace_is_not_read(folder):
    for path in folder.iterdir():
        with h5py.File(path, "r+") as volume:
            shape = volume["kspace"].shape
            del volume["kspace"]
            # a damaged chunk: any reading of it fails
            kspace = volume.create_dataset("kspace", shape, np.complex64, chunks=shape, compression="gzip")
            kspace.id.write_direct_chunk((0,) * len(shape), b"no gzip")
    data = SegmentationSlices(folder, only_with_classes=True)
    assert data[0].image.shape == (1, 10, 8) and data.num_classes == 4


@pytest.mark.parametrize("num_workers", [0, 2])
def test_batches_of_equal_sizes_in_any_process(folder, num_workers):
    data = pickle.loads(pickle.dumps(SegmentationSlices(folder)))
    batches = EqualSizeBatches(data.sizes, batch_size=2)
    loader = DataLoader(data, batch_sampler=batches, num_workers=num_workers)
    seen = []
    for image, segmentation, names, numbers in loader:
        assert image.shape[0] == segmentation.shape[0] and image.shape[2:] == segmentation.shape[1:]
        for row, (name, number) in enumerate(zip(names, numbers.tolist(), strict=True)):
            np.testing.assert_array_equal(segmentation[row], draw(SHAPES[name[0]])[number])
            seen.append((name, number))
    assert sorted(seen) == [("a.h5", 0), ("a.h5", 1), ("a.h5", 2), ("b.h5", 0), ("b.h5", 1)]


def test_volumes_without_a_segmentation(folder):
    make_volume(folder / "c.h5", SHAPES["a"])
    with pytest.raises(ValueError, match=r"1 of 3 volumes .* c\.h5; add it with python -m .* segmentation"):
        SegmentationSlices(folder)
    data = SegmentationSlices(folder, skip_missing=True)
    assert len(data) == 5 and {sample.fname for sample in map(data.__getitem__, range(5))} == {"a.h5", "b.h5"}


def test_folders_that_cannot_be_used(tmp_path):
    with pytest.raises(FileNotFoundError):
        SegmentationSlices(tmp_path)
    make_volume(tmp_path / "a.h5", (2, 6, 5))
    with pytest.raises(ValueError, match="none that is left"):
        SegmentationSlices(tmp_path, skip_missing=True)
    make_volume(tmp_path / "a.h5", (2, 6, 5), np.zeros((2, 6, 5), np.uint8))
    assert SegmentationSlices(tmp_path).num_classes == 1
    with pytest.raises(ValueError, match="none that is left"):
        SegmentationSlices(tmp_path, only_with_classes=True)
    for labels in (np.zeros((2, 6, 4), np.uint8), np.zeros((2, 6, 5), np.float32)):
        make_volume(tmp_path / "a.h5", (2, 6, 5), labels)
        with pytest.raises(ValueError, match=r"of the reconstruction's shape|must hold class numbers"):
            SegmentationSlices(tmp_path)
    make_volume(tmp_path / "a.h5", (2, 6, 5), np.zeros((2, 6, 5), np.uint8), mask=np.array([1, 0, 1, 0, 1]))
    with pytest.raises(ValueError, match="must have a reconstruction"):
        SegmentationSlices(tmp_path)
    (tmp_path / "a.h5").write_bytes(b"broken")
    with pytest.raises(ValueError, match="is not an HDF5 file"):
        SegmentationSlices(tmp_path)


def test_the_reconstruction_is_the_one_that_fastmri_trains_on(tmp_path):
    for name, coils in (("reconstruction_rss", 2), ("reconstruction_esc", None)):
        other = {"reconstruction_rss", "reconstruction_esc"} - {name}
        make_volume(tmp_path / "a.h5", (2, 6, 5), num_coils=coils)
        with h5py.File(tmp_path / "a.h5", "r+") as volume:
            volume[other.pop()] = np.zeros((2, 6, 5))  # fastMRI's single-coil files have both
            assert find_reconstruction(volume).name == f"/{name}"
            del volume[name]
            assert find_reconstruction(volume) is not None
