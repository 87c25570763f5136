"""The 3D recipe as a user types it: raw files in, volumes and their views out."""

import json
from pathlib import Path

import h5py
import pytest
from helpers import run_process, run_recipe

from fastmri_ufloss.simulation.demo import make_demo_scans_3d

SCRIPT = "modl_ufloss_3d/train.py"
TINY = [
    "--accelerator", "cpu", "--num_workers", 0, "--max_epochs", 1, "--limit_train_batches", 3, "--chans", 2,
    "--num_layers", 2, "--num_unrolls", 1, "--accelerations", 3, "--center_size", 8, "--patch_size", 39,
    "--stride", 8, "--score_stride", 16,
]  # fmt: skip


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("scans")
    make_demo_scans_3d(root, num_subjects=3, shape=(32, 40, 44), num_coils=4)
    return root


def test_raw_files_become_volumes_and_views(scans: Path, tmp_path: Path) -> None:
    command = ["--raw_path", scans, "--data_path", "data", *TINY]
    assert "CG-SENSE" in run_process(SCRIPT, *command, cwd=tmp_path).stdout
    volumes = sorted((tmp_path / "data").rglob("*.h5"))
    assert [path.parent.name for path in volumes] == ["multicoil_test", "multicoil_train", "multicoil_val"]
    for path in volumes:
        with h5py.File(path) as file:
            assert file["kspace"].shape == (32, 4, 40, 44) and "mask" not in file
    folder = tmp_path / "runs" / "modl_ufloss_3d"
    with h5py.File(folder / "reconstructions" / "knee3d-003.h5") as file:
        assert file["reconstruction"].shape == (32, 40, 44)
    assert (folder / "views" / "knee3d-003.png").is_file()
    means = json.loads((folder / "scores.json").read_text())["means"]
    assert {row["method"]: row["volumes"] for row in means} == {"zero-filled": 1, "CG-SENSE": 1, "MoDL": 1}

    stamps = [path.stat().st_mtime_ns for path in volumes]
    (folder / "views" / "knee3d-003.png").unlink()
    run_recipe(SCRIPT, *command, "--mode", "test", cwd=tmp_path)
    assert [path.stat().st_mtime_ns for path in volumes] == stamps  # converted once
    assert (folder / "views" / "knee3d-003.png").is_file()


def test_bad_input_is_named(scans: Path, tmp_path: Path) -> None:
    (tmp_path / "two").mkdir()
    for number in (1, 2):
        (tmp_path / "two" / f"{number}.h5").symlink_to(scans / f"knee3d-00{number}.h5")
    (tmp_path / "empty").mkdir()
    for options, message in [
        (["--raw_path", "nowhere"], "no folder nowhere"),
        (["--raw_path", "empty"], "empty must be ISMRMRD"),
        (["--raw_path", "two"], "2 scans are too few"),
        (["--raw_path", scans, "--split", 2, 2, 2], "whose sum is that of the inputs, 3"),
    ]:
        assert message in run_recipe(SCRIPT, *options, *TINY, cwd=tmp_path, fails=True).stderr
    assert not (tmp_path / "runs").exists()
