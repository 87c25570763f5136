import json
import os
import pickle
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
from fastmri.data import SliceDataset

from fastmri_ufloss.data import IndexedSliceDataset, MetadataIndex, read_split
from fastmri_ufloss.data.index import list_volumes, read_metadata, volume_scale
from fastmri_ufloss.data.slices import scale_center
from fastmri_ufloss.pl_modules import MriDataModule
from fastmri_ufloss.simulation.simulate import simulate_kspace, write_volume


def make_volume(path: Path, *, slices: int = 3, shape: tuple[int, int] = (24, 32), coils: int | None = 4) -> Path:
    images = np.random.default_rng(len(path.name)).random((slices, *shape)) + 0.5
    write_volume(path, simulate_kspace(images, num_coils=coils, seed=1))
    return path


def replace(path: Path, name: str, value: object | None) -> None:
    with h5py.File(path, "r+") as volume:
        del volume[name]
        if value is not None:
            volume[name] = value


def test_metadata_are_those_of_fastmri(tmp_path: Path) -> None:
    path = make_volume(tmp_path / "a.h5")
    theirs = SliceDataset(tmp_path, "multicoil").raw_samples[0].metadata
    ours = read_metadata(path, "multicoil")
    for name, value in theirs.items():
        assert np.all(np.asarray(ours[name]) == np.asarray(value)), name


def test_slices_are_those_of_fastmri(tmp_path: Path) -> None:
    make_volume(tmp_path / "a.h5")
    make_volume(tmp_path / "b.h5", shape=(20, 28))
    index = MetadataIndex(tmp_path / "cache" / "index.json", challenge="multicoil")
    shutil.move(tmp_path / "cache", tmp_path.parent / "cache") if (tmp_path / "cache").exists() else None
    ours, theirs = (
        IndexedSliceDataset(tmp_path, "multicoil", index=index),
        SliceDataset(tmp_path, "multicoil"),
    )
    assert len(ours) == len(theirs) == 6
    for i in (0, 5):
        np.testing.assert_array_equal(ours[i][0], theirs[i][0])
        assert ours[i][4:] == theirs[i][4:]
    assert [key[:3] for key in ours.batch_keys] == [(4, 24, 32)] * 3 + [(4, 20, 28)] * 3
    pickle.dumps(ours)  # for workers that are not forked


def test_index_is_used_again_until_the_file_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, file = make_volume(tmp_path / "a.h5"), tmp_path / "index.json"
    index = MetadataIndex(file, challenge="multicoil")
    index.build([path], lambda metadata: (24, 8))
    scale = index.scale(path, (24, 8))

    again = MetadataIndex(file, challenge="multicoil")
    with monkeypatch.context() as patch:
        patch.setattr(h5py, "File", lambda *args, **kwargs: pytest.fail("the file was read again"))
        assert again.scale(path, (24, 8)) == scale
        assert again.metadata(path)["kspace_shape"] == [3, 4, 24, 32]

    with h5py.File(path, "r+") as volume:
        volume["kspace"][...] *= 2
    os.utime(path, ns=(1, 1))
    assert MetadataIndex(file, challenge="multicoil").scale(path, (24, 8)) == pytest.approx(2 * scale, rel=1e-5)


def test_index_is_plain_json_and_a_damaged_one_is_made_anew(tmp_path: Path) -> None:
    path, file = make_volume(tmp_path / "a.h5"), tmp_path / "index.json"
    MetadataIndex(file, challenge="multicoil").build([path], lambda metadata: (24, 8))
    assert json.loads(file.read_text())["challenge"] == "multicoil"
    file.write_text(file.read_text()[:-20])
    with pytest.warns(UserWarning, match="damaged"):
        index = MetadataIndex(file, challenge="multicoil")
    assert index.scale(path, (24, 8)) > 0


def test_scale_is_that_of_the_rss_image_and_ignores_the_rest_of_kspace(tmp_path: Path) -> None:
    path = make_volume(tmp_path / "a.h5", shape=(32, 32))
    with h5py.File(path) as volume:
        rss = volume["reconstruction_rss"][()]
    scale, empty = volume_scale(path, (32, 32))
    assert scale == pytest.approx(np.percentile(rss, 95), rel=1e-5) and empty == []
    center, _ = volume_scale(path, (24, 8))
    assert center == pytest.approx(scale, rel=0.3)
    with h5py.File(path, "r+") as volume:
        kspace = volume["kspace"][()]
        kspace[..., :12], kspace[..., 20:] = 0, 0
        volume["kspace"][...] = kspace
    assert volume_scale(path, (24, 8))[0] == center


def test_empty_slices_are_skipped_with_a_warning(tmp_path: Path) -> None:
    path = make_volume(tmp_path / "a.h5")
    with h5py.File(path, "r+") as volume:
        volume["kspace"][1] = 0
    index = MetadataIndex(tmp_path / "index.json", challenge="multicoil")
    with pytest.warns(UserWarning, match=r"skipped slices \[1\]"):
        dataset = IndexedSliceDataset(tmp_path, "multicoil", index=index)
    assert [sample.slice_ind for sample in dataset.raw_samples] == [0, 2]
    assert len(IndexedSliceDataset(tmp_path, "multicoil", index=index, skip_empty=False)) == 3


def test_stray_files_are_skipped_with_a_warning(tmp_path: Path) -> None:
    make_volume(tmp_path / "a.h5")
    (tmp_path / "notes.txt").write_text("hello")
    (tmp_path / "folder").mkdir()
    index = MetadataIndex(tmp_path.parent / "index.json", challenge="multicoil")
    with pytest.warns(UserWarning, match=r"folder, notes\.txt"):
        assert len(IndexedSliceDataset(tmp_path, "multicoil", index=index)) == 3


def test_sub_sampling_is_seeded_and_leaves_the_global_generator_alone(tmp_path: Path) -> None:
    import random

    for name in "abcd":
        make_volume(tmp_path / f"{name}.h5")
    index = MetadataIndex(tmp_path.parent / "index2.json", challenge="multicoil")
    random.seed(5)
    expected = random.random()
    random.seed(5)
    first, same, other = (
        IndexedSliceDataset(tmp_path, "multicoil", index=index, volume_sample_rate=0.5, seed=seed)
        for seed in (0, 0, 3)
    )
    assert random.random() == expected
    names = [sorted({s.fname.name for s in d.raw_samples}) for d in (first, same, other)]
    assert names[0] == names[1] and len(names[0]) == 2


def test_missing_and_empty_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no folder .*nowhere"):
        list_volumes(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="no HDF5 volumes"):
        list_volumes(tmp_path)


def test_unusable_volumes_are_named(tmp_path: Path) -> None:
    def error(message: str, challenge: str = "multicoil") -> None:
        with pytest.raises(ValueError, match=message) as caught:
            read_metadata(path, challenge)
        assert str(path) in str(caught.value)

    path = tmp_path / "text.h5"
    path.write_text("no HDF5")
    error("not an HDF5 file")

    path = make_volume(tmp_path / "truncated.h5")
    path.write_bytes(path.read_bytes()[:4000])
    error("truncated")

    path = make_volume(tmp_path / "without_kspace.h5")
    replace(path, "kspace", None)
    error("has no data set 'kspace'")

    path = make_volume(tmp_path / "without_header.h5")
    replace(path, "ismrmrd_header", None)
    error("has no data set 'ismrmrd_header'")

    for header in (b"<broken", b"<a xmlns='http://www.ismrm.org/ISMRMRD'/>"):
        path = make_volume(tmp_path / "broken_header.h5")
        replace(path, "ismrmrd_header", header)
        error("broken 'ismrmrd_header'")

    path = make_volume(tmp_path / "multi.h5")
    error("is it a multicoil file", "singlecoil")
    path = make_volume(tmp_path / "single.h5", coils=None)
    error("is it a singlecoil file")


def test_kspace_that_is_not_finite_or_zero_is_named(tmp_path: Path) -> None:
    path = make_volume(tmp_path / "a.h5")
    with h5py.File(path, "r+") as volume:
        volume["kspace"][2, 1, 3, 16] = np.nan
    with pytest.raises(ValueError, match=r"a\.h5: k-space of slice 2 has NaN"):
        volume_scale(path, (24, 8))
    with h5py.File(path, "r+") as volume:
        volume["kspace"][...] = 0
    with pytest.raises(ValueError, match="no slice has a signal"):
        volume_scale(path, (24, 8))


def test_negative_padding_does_not_blank_masks(tmp_path: Path) -> None:
    path = make_volume(tmp_path / "a.h5")
    with h5py.File(path, "r+") as volume:
        header = volume["ismrmrd_header"][()].decode()
        del volume["ismrmrd_header"]
        assert "<center>16</center>" in header
        volume["ismrmrd_header"] = header.replace("<center>16</center>", "<center>17</center>").encode()
    metadata = read_metadata(path, "multicoil")
    assert (metadata["padding_left"], metadata["padding_right"]) == (0, 31)


def test_killed_while_the_index_is_written_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, file = make_volume(tmp_path / "a.h5"), tmp_path / "index.json"
    MetadataIndex(file, challenge="multicoil").build([path], lambda metadata: (24, 8))
    before = file.read_bytes()

    def full_disk(*args: object, **kwargs: object) -> None:
        raise OSError("No space left on device")

    index = MetadataIndex(file, challenge="multicoil")
    monkeypatch.setattr(Path, "write_text", full_disk)
    with pytest.raises(OSError, match="No space left"):
        index.build([path], lambda metadata: (24, 10))
    assert file.read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.h5", "index.json"]


def test_sampling_comes_from_the_mask_or_from_zeros(tmp_path: Path) -> None:
    path = make_volume(tmp_path / "a.h5")
    assert (read_metadata(path, "multicoil")["sampling"], read_metadata(path, "multicoil")["mask_center"]) == (
        None,
        None,
    )
    points = np.zeros((24, 32), dtype=bool)
    points[::3, ::2] = points[7:17, 11:21] = True
    columns = np.zeros(32, dtype=bool)
    columns[::3] = columns[12:20] = True
    for mask, sampling, center in ((points, "points", [10, 10]), (columns, "columns", [24, 8])):
        with h5py.File(path, "r+") as volume:
            kspace = volume["kspace"][()]
            volume["mask"] = mask
        facts = read_metadata(path, "multicoil")
        assert (facts["sampling"], facts["mask_center"]) == (sampling, center)
        with h5py.File(path, "r+") as volume:  # no mask, but zeros that show it
            del volume["mask"]
            volume["kspace"][...] = kspace * mask
        facts = read_metadata(path, "multicoil")
        assert (facts["sampling"], facts["mask_center"]) == (sampling, center)
        with h5py.File(path, "r+") as volume:
            volume["kspace"][...] = kspace
    with h5py.File(path, "r+") as volume:
        volume["kspace"][..., :5] = 0  # a border is no undersampling
        volume["kspace"][..., :9, :] = 0
    assert read_metadata(path, "multicoil")["sampling"] is None
    with h5py.File(path, "r+") as volume:
        volume["mask"] = np.ones((5, 7))
    with pytest.raises(ValueError, match=r"mask must have shape \(32,\) or \(24, 32\), got \(5, 7\)"):
        read_metadata(path, "multicoil")


def test_slice_with_gaps_beside_a_full_middle_slice_is_named(tmp_path: Path) -> None:
    path = make_volume(tmp_path / "a.h5")
    with h5py.File(path, "r+") as volume:
        volume["kspace"][0, ..., 1::2] = 0
    with pytest.raises(ValueError, match=r"a\.h5: slice 0 is undersampled.*slice \d is not"):
        read_metadata(path, "multicoil")
    with h5py.File(path, "r+") as volume:
        volume["kspace"][0] = 0  # an empty one is no matter
    assert read_metadata(path, "multicoil")["sampling"] is None


def test_subsampled_slices_stay_in_the_order_of_their_volumes(tmp_path: Path) -> None:
    for name in ("a.h5", "b.h5", "c.h5"):
        make_volume(tmp_path / name, slices=4)
    index = MetadataIndex(tmp_path / "index.json", challenge="multicoil")
    samples = IndexedSliceDataset(tmp_path, "multicoil", index=index, sample_rate=0.7).raw_samples
    places = [(sample.fname.name, sample.slice_ind) for sample in samples]
    assert len(places) == 8 and places == sorted(places)


def test_scale_of_a_square_center_reads_nothing_else(tmp_path: Path) -> None:
    path = make_volume(tmp_path / "a.h5", shape=(32, 32))
    whole, _ = volume_scale(path, (32, 32))
    square, _ = volume_scale(path, (12, 12))
    assert square == pytest.approx(whole, rel=0.3)
    with h5py.File(path, "r+") as volume:
        center = volume["kspace"][..., 10:22, 10:22]
        volume["kspace"][...] = 0
        volume["kspace"][..., 10:22, 10:22] = center
    assert volume_scale(path, (12, 12))[0] == square


def test_center_for_the_scale() -> None:
    facts = {"kspace_shape": [3, 4, 40, 60], "mask_center": None}
    assert scale_center(facts, None) == (40, 24)
    assert scale_center(facts, lambda rows, cols: (rows, 10)) == (40, 10)
    assert scale_center(facts, lambda rows, cols: (30, 30)) == (24, 24)
    assert scale_center({**facts, "mask_center": [16, 16]}, None) == (16, 16)


def test_a_split_divides_the_validation_folder(tmp_path: Path) -> None:
    shipped = read_split("promptmr-knee")
    assert {part: len(names) for part, names in shipped.items()} == {"val": 99, "test": 100}
    assert not shipped["val"] & shipped["test"] and all(name.startswith("file100") for name in shipped["val"])
    for split, names in (("val", "abcd"), ("train", "e")):
        for name in names:
            make_volume(tmp_path / f"multicoil_{split}" / f"{name}.h5", slices=1)
    file = tmp_path / "split.json"

    def module(**lists: list[str]) -> MriDataModule:
        file.write_text(json.dumps(lists))
        return MriDataModule(tmp_path, "multicoil", *(None,) * 3, cache_dir=tmp_path / "cache", val_split=file)

    data = module(val_list=["a.h5", "c.h5"], test_list=["d.h5"])
    for split, names in {"train": "e", "val": "ac", "test": "d"}.items():
        data.build_index(split)
        found = {sample.fname.stem for sample in data.dataset(split).raw_samples}
        assert found == set(names)
    data.test_path = tmp_path / "multicoil_train"  # another folder is tested as a whole
    assert {sample.fname.stem for sample in data.dataset("test").raw_samples} == {"e"}
    with pytest.raises(ValueError, match=r"multicoil_val lacks 2 volumes of the split: x\.h5, y\.h5"):
        module(val_list=["a.h5", "x.h5", "y.h5"], test_list=["d.h5"]).build_index("val")
    for lists, message in [
        ({"val_list": ["a.h5"], "test_list": ["a.h5"]}, "no volume in both lists, got a.h5"),
        ({"val_list": ["a.h5"]}, "JSON with the lists val_list and test_list"),
        ({"val_list": [], "test_list": ["a.h5"]}, "val_list of .* must be file names"),
        ({"val_list": [3], "test_list": ["a.h5"]}, "val_list of .* must be file names"),
    ]:
        with pytest.raises(ValueError, match=message):
            module(**lists)
    with pytest.raises(FileNotFoundError, match="those that ship are promptmr-knee"):
        read_split("nowhere.json")
