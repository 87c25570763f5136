import json
import os

import fastmri
import h5py
import numpy as np
import pytest
import torch
from fastmri.data import SliceDataset

from fastmri_ufloss.mri import estimate_sens_maps, sens_expand, sens_reduce
from fastmri_ufloss.simulation.demo import make_demo_dataset
from fastmri_ufloss.simulation.simulate import write_volume

SMALL = {"num_subjects": (2, 1, 1), "slices_per_subject": 2, "shape": (64, 64), "num_coils": 3}


def contents(root):
    return {path.relative_to(root).as_posix(): path for path in sorted(root.rglob("*")) if path.is_file()}


def kspace_of(path):
    with h5py.File(path) as volume:
        return volume["kspace"][()]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo")
    for challenge in ("multicoil", "singlecoil"):
        assert make_demo_dataset(folder, challenge=challenge, **SMALL) == folder
    return folder


def test_files_of_both_challenges(root):
    volumes = [name for name in contents(root) if name.endswith(".h5")]
    assert volumes == [
        f"{challenge}_{name}"
        for challenge in ("multicoil", "singlecoil")
        for name in (
            "test/file1002001.h5",
            "train/file1000001.h5",
            "train/file1000002.h5",
            "val/file1001001.h5",
        )
    ]
    others = set(contents(root)) - set(volumes)
    assert others == {"multicoil_demo.json", "singlecoil_demo.json"}


@pytest.mark.parametrize("challenge", ["multicoil", "singlecoil"])
@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_fastmri_reads_the_splits(root, challenge, split):
    data = SliceDataset(root / f"{challenge}_{split}", challenge)
    assert len(data) == (4 if split == "train" else 2)
    kspace, mask, target, attributes, _, _ = data[0]
    assert kspace.shape == ((3, 64, 64) if challenge == "multicoil" else (64, 64))
    assert mask is None and target.shape == (64, 64)
    assert attributes["max"] >= target.max() > 1e-5
    assert 1e-5 < attributes["max"] < 1e-2  # intensities as raw fastMRI data have them
    assert (attributes["padding_left"], attributes["padding_right"]) == (0, 64)


def test_contrasts_alternate_and_patients_differ(root):
    data = SliceDataset(root / "multicoil_train", "multicoil")
    found = {name: attributes for _, _, _, attributes, name, _ in data}
    assert [found[name]["acquisition"] for name in sorted(found)] == ["CORPD_FBK", "CORPDFS_FBK"]
    assert len({attributes["patient_id"] for attributes in found.values()}) == 2


def test_both_challenges_show_the_same_images(root):
    many, one = (SliceDataset(root / f"{name}_val", name)[0][2] for name in ("multicoil", "singlecoil"))
    assert np.corrcoef(many.ravel(), one.ravel())[0, 1] > 0.97


def test_subjects_do_not_depend_on_their_number(root, tmp_path):
    make_demo_dataset(tmp_path, **{**SMALL, "num_subjects": (1, 0, 1)})
    for name in ("multicoil_train/file1000001.h5", "multicoil_test/file1002001.h5"):
        assert np.array_equal(kspace_of(tmp_path / name), kspace_of(root / name))
    assert (tmp_path / "multicoil_val").is_dir()


def test_coil_maps_hold_up_to_the_first_and_the_last_row(tmp_path):
    """Where anatomy is cut off, the smooth maps of ESPIRiT do not fit it."""
    make_demo_dataset(tmp_path, num_subjects=(1, 0, 0), slices_per_subject=2)
    kspace = torch.view_as_real(torch.from_numpy(kspace_of(tmp_path / "multicoil_train" / "file1000001.h5")))
    maps = estimate_sens_maps(kspace, 24, mask=torch.ones(2, 1, 1, 160, 1, dtype=torch.bool))
    lost = torch.view_as_complex(kspace - sens_expand(sens_reduce(kspace, maps), maps))
    lost = fastmri.ifft2c(torch.view_as_real(lost)).square().sum(dim=(1, 3, 4))  # what the maps do not explain
    inside = lost[:, 40:120].mean()
    assert max(float(lost[:, :4].mean()), float(lost[:, -4:].mean())) < 1.3 * inside


def test_seed_and_options_change_the_data(root, tmp_path):
    name = "multicoil_train/file1000001.h5"
    before = kspace_of(root / name)
    for index, changes in enumerate(({"seed": 1}, {"snr": 5.0})):
        folder = make_demo_dataset(tmp_path / str(index), **{**SMALL, "num_subjects": (1, 0, 0), **changes})
        assert not np.allclose(before, kspace_of(folder / name), rtol=1e-3, atol=1e-6)


def test_complete_data_set_is_kept(root):
    before = {name: path.stat().st_mtime_ns for name, path in contents(root).items()}
    make_demo_dataset(root, **SMALL)
    assert {name: path.stat().st_mtime_ns for name, path in contents(root).items()} == before


def test_interrupted_data_set_is_completed(root, tmp_path, monkeypatch):
    calls = []

    def interrupted(path, *args, **options):
        if len(calls) == 2:
            raise KeyboardInterrupt
        calls.append(path)
        write_volume(path, *args, **options)

    monkeypatch.setattr("fastmri_ufloss.simulation.demo.write_volume", interrupted)
    with pytest.raises(KeyboardInterrupt):
        make_demo_dataset(tmp_path, **SMALL)
    kept = {path: path.stat().st_mtime_ns for path in calls}
    with pytest.raises(ValueError, match="other parameters"):
        make_demo_dataset(tmp_path, **{**SMALL, "seed": 3})
    monkeypatch.undo()
    make_demo_dataset(tmp_path, **SMALL)
    assert {path: path.stat().st_mtime_ns for path in calls} == kept
    assert sorted(contents(tmp_path)) == [name for name in contents(root) if name.startswith("multicoil")]


def test_deleted_volume_comes_back(tmp_path):
    make_demo_dataset(tmp_path, **SMALL)
    path = tmp_path / "multicoil_val" / "file1001001.h5"
    before = kspace_of(path)
    path.unlink()
    make_demo_dataset(tmp_path, **SMALL)
    assert np.array_equal(kspace_of(path), before)


def test_leftovers_of_a_killed_process_go(tmp_path):
    make_demo_dataset(tmp_path, **{**SMALL, "num_subjects": (1, 0, 0)})
    old, young = (tmp_path / "multicoil_train" / f".file1000001.h5.{name}.tmp" for name in ("old", "young"))
    for path in (old, young):
        path.touch()
    os.utime(old, (0, 0))
    make_demo_dataset(tmp_path, **{**SMALL, "num_subjects": (1, 0, 0)})
    assert not old.exists() and young.exists()


def test_other_parameters_raise(root):
    for changes in ({"seed": 1}, {"num_coils": 2}, {"num_subjects": (2, 1, 2)}, {"snr": 10.0}):
        with pytest.raises(ValueError, match="other parameters"):
            make_demo_dataset(root, **{**SMALL, **changes})
    assert json.loads((root / "multicoil_demo.json").read_text())["seed"] == 0


def test_volumes_of_somebody_else_are_not_touched(tmp_path):
    (tmp_path / "multicoil_train").mkdir()
    (tmp_path / "multicoil_train" / "mine.h5").write_text("data")
    with pytest.raises(ValueError, match="root must have no volumes"):
        make_demo_dataset(tmp_path, **SMALL)
    assert list(contents(tmp_path)) == ["multicoil_train/mine.h5"]


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("challenge", {"challenge": "brain"}),
        ("num_subjects", {"num_subjects": (1, 2)}),
        ("num_subjects", {"num_subjects": (1, 2, -1)}),
        ("slices", {"slices_per_subject": 0}),
        ("shape", {"shape": (16, 64)}),
        ("num_coils", {"num_coils": 0}),
        ("snr", {"snr": 0.0}),
        ("seed", {"seed": -1}),
    ],
)
def test_bad_input_is_named_before_anything_is_written(tmp_path, name, changes):
    with pytest.raises(ValueError, match=name):
        make_demo_dataset(tmp_path, **{**SMALL, **changes})
    assert list(tmp_path.iterdir()) == []
