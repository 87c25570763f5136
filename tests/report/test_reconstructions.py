import os
from pathlib import Path

import h5py
import numpy as np
import pytest
from report_data import NAMES, make_acquired, make_folders, read, write

from fastmri_ufloss.report.reconstructions import Reconstructions, read_mask, reference_kind


@pytest.fixture
def root(tmp_path: Path) -> Path:
    make_folders(tmp_path)
    return tmp_path


def find(root: Path, *methods: str, **options: object) -> Reconstructions:
    names = methods or ("noisy", "dim")
    return Reconstructions({name: root / name for name in names}, {"RSS": root / "reference"}, **options)


def test_volumes_find_each_other_by_name(root: Path) -> None:
    data = find(root, segmentations=root / "val")
    assert [files.name for files in data.volumes] == list(NAMES) and data.left_out == [] and data.cropped == {}
    files = data.volumes[1]
    assert (files.num_slices, files.size, files.subject, files.contrast) == (2, (40, 40), "b.h5", "")
    volume = files.read()
    np.testing.assert_array_equal(volume.references["RSS"], read(root / "reference" / "b.h5"))
    np.testing.assert_array_equal(volume.outputs["dim"], read(root / "dim" / "b.h5"))
    np.testing.assert_array_equal(volume.segmentation, read(root / "val" / "b.h5", "segmentation"))
    one = files.read(1)
    np.testing.assert_array_equal(one.outputs["noisy"][0], volume.outputs["noisy"][1])
    assert one.segmentation is not None and len(one.segmentation) == len(one.references["RSS"]) == 1


def test_all_methods_with_missing_volumes_are_named(root: Path) -> None:
    (root / "dim" / "b.h5").unlink()
    (root / "noisy" / "a.h5").unlink()
    (root / "reference" / "a.h5").unlink()
    with pytest.raises(ValueError, match=r"RSS lacks a.h5, noisy lacks a.h5, dim lacks b.h5; mend them"):
        find(root)
    data = find(root, common=True)
    assert [files.name for files in data.volumes] == ["c.h5"]
    assert [(left["volume"], left["source"]) for left in data.left_out] == [
        ("a.h5", "RSS"),
        ("a.h5", "noisy"),
        ("b.h5", "dim"),
    ]
    (root / "noisy" / "c.h5").unlink()
    with pytest.raises(ValueError, match="must have volumes in common, got none of 3"):
        find(root, common=True)


def test_other_numbers_of_slices_are_named(root: Path) -> None:
    for name in ("a.h5", "c.h5"):
        write(root / "dim" / name, np.ones((3, 40, 40)))
    with pytest.raises(ValueError, match=r"a.h5 has .*: 2 of RSS, 2 of noisy, 3 of dim, c.h5 has .*; mend them"):
        find(root)
    data = find(root, common=True)
    assert [files.name for files in data.volumes] == ["b.h5"]
    assert {left["volume"] for left in data.left_out} == {"a.h5", "c.h5"}


@pytest.mark.parametrize("kind", ["truncated", "text", "no images", "complex", "of two axes"])
def test_unreadable_files_are_named(root: Path, kind: str) -> None:
    path = root / "noisy" / "b.h5"
    if kind == "truncated":
        os.truncate(path, path.stat().st_size // 2)
    elif kind == "text":
        path.write_text("nothing")
    elif kind == "no images":
        write(path, np.ones(2), name="other")
    else:
        write(path, np.ones((2, 40, 40), dtype=complex) if kind == "complex" else np.ones((40, 40)))
    with pytest.raises(
        ValueError, match=r"noisy/b.h5 (is not an HDF5|has no data set|must hold real magn).*with common"
    ):
        find(root)
    data = find(root, common=True)
    assert [files.name for files in data.volumes] == ["a.h5", "c.h5"]
    assert "noisy/b.h5" in data.left_out[0]["why"]


def test_all_are_cropped_to_the_smallest(root: Path) -> None:
    images = read(root / "dim" / "b.h5")
    write(root / "dim" / "b.h5", images[:, 2:-2, 3:-3])
    data = find(root, segmentations=root / "val")
    assert data.cropped == {"b.h5": "40x40 (RSS, noisy, segmentation) to 36x34"}
    volume = data.volumes[1].read()
    np.testing.assert_array_equal(volume.references["RSS"], read(root / "reference" / "b.h5")[:, 2:-2, 3:-3])
    assert volume.segmentation is not None and volume.segmentation.shape == (2, 36, 34)
    assert data.volumes[0].size == (40, 40)


def test_subjects_and_contrasts_are_those_of_the_files(root: Path) -> None:
    for name, patient in zip(NAMES, ("one", "two", "one"), strict=True):
        with h5py.File(root / "reference" / name, "a") as file:
            file.attrs.update({"patient_id": patient, "acquisition": "CORPD_FBK"})
    data = find(root)
    assert [files.subject for files in data.volumes] == ["one", "two", "one"]
    assert {files.contrast for files in data.volumes} == {"CORPD_FBK"}
    for name in NAMES:
        with h5py.File(root / "reference" / name, "a") as file:
            file.attrs["patient_id"] = "anonymous"
    assert [files.subject for files in find(root).volumes] == list(NAMES)


def test_kspace_and_segmentations_may_have_more(root: Path) -> None:
    for name in (*NAMES, "d.h5"):
        make_acquired(root, name)
    assert len(find(root, kspace=root / "kspace")) == 3
    write(root / "kspace" / "b.h5", np.ones((2, 4, 40, 40)), name="kspace")
    with pytest.raises(ValueError, match=r"kspace/b.h5 must hold complex numbers"):
        find(root, kspace=root / "kspace")
    with pytest.raises(ValueError, match=r"reference/a.h5 has no data set 'segmentation': add it with"):
        find(root, segmentations=root / "reference")


def test_strays_are_skipped_with_a_warning(root: Path) -> None:
    (root / "noisy" / "readme.txt").write_text("notes")
    with pytest.warns(UserWarning, match=r"skipped 1 that are no HDF5 volumes: readme.txt"):
        assert len(find(root)) == 3


def test_folders_and_names_are_checked(root: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"^nowhere: no folder .*nowhere"):
        find(root, "nowhere")
    (root / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"^empty: no HDF5 volumes .*empty"):
        find(root, "empty")
    with pytest.raises(ValueError, match=r"other names than the references, .*got RSS: name the folder"):
        Reconstructions({"RSS": root / "dim"}, {"RSS": root / "reference"})
    with pytest.raises(ValueError, match="must be at least one"):
        Reconstructions({}, {"RSS": root / "reference"})


def test_stamp_tells_changes(root: Path) -> None:
    before = [files.stamp for files in find(root).volumes]
    os.utime(root / "dim" / "b.h5", (1, 1))
    after = [files.stamp for files in find(root).volumes]
    assert [old == new for old, new in zip(before, after, strict=True)] == [True, False, True]


def test_masks(tmp_path: Path) -> None:
    images, mask = np.ones((1, 4, 6)), np.array([0, 1, 1, 0, 1, 0])
    write(tmp_path / "a.h5", images)
    assert read_mask(tmp_path / "a.h5") is None
    for stored in (mask, mask[None].astype(np.float32), mask[None, None, :, None]):
        write(tmp_path / "a.h5", images, mask=stored)
        np.testing.assert_array_equal(read_mask(tmp_path / "a.h5"), mask.astype(bool))
    write(tmp_path / "a.h5", images, mask=np.eye(6))
    np.testing.assert_array_equal(read_mask(tmp_path / "a.h5"), np.eye(6, dtype=bool))
    for wrong in (np.zeros(6), np.ones((2, 4, 6))):
        write(tmp_path / "a.h5", images, mask=wrong)
        with pytest.raises(ValueError, match=r"a.h5: mask must be of columns"):
            read_mask(tmp_path / "a.h5")


def test_kinds_of_references(root: Path) -> None:
    write(root / "single.h5", np.ones((1, 4, 4)), name="reconstruction_esc")
    files = (root / "val" / "a.h5", root / "single.h5", root / "dim" / "a.h5")
    assert [reference_kind(path) for path in files] == ["RSS", "ESC", "reference"]


def test_names_that_the_report_has_itself_are_refused(root: Path) -> None:
    for name in ("masks", "k-space", "segmentation"):
        with pytest.raises(ValueError, match=f"other names than .*got {name}: name the folder with NAME=FOLDER"):
            Reconstructions({name: root / "dim"}, {"RSS": root / "reference"})
        with pytest.raises(ValueError, match=f"got {name}"):
            Reconstructions({"dim": root / "dim"}, {name: root / "reference"})


def test_groups_are_no_data_sets(root: Path) -> None:
    with h5py.File(root / "dim" / "a.h5", "a") as file:
        file.create_group("mask")
    with pytest.raises(ValueError, match=r"a\.h5: 'mask' must be a data set"):
        read_mask(root / "dim" / "a.h5")
    with h5py.File(root / "dim" / "b.h5", "w") as file:
        file.create_group("reconstruction")
    with pytest.raises(ValueError, match=r"b\.h5: 'reconstruction' must be a data set .* got a group"):
        find(root)
    assert [files.name for files in find(root, common=True).volumes] == ["c.h5"]
