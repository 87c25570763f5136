"""The recipe of classical methods: weights from the validation split alone, files that resume, and bad input."""

import argparse
import json
import os
import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from fastmri.evaluate import evaluate
from helpers import run_process, run_recipe

from fastmri_ufloss.baselines import CLASSICAL_METHODS, has_bart
from fastmri_ufloss.data import MoDLDataTransform, ReconstructionWriter, SensMapCache, create_mask_for_mask_type
from fastmri_ufloss.data.slices import IndexedSliceDataset
from fastmri_ufloss.pl_modules import MriDataModule

SCRIPT = "classical/reconstruct.py"
MASK = ["--center_fractions", 0.2, "--accelerations", 3]
QUICK = [*MASK, "--num_workers", 0, "--search_slices", 2]
NAME = "file1002001.h5"


def read(path: Path, name: str = "reconstruction") -> np.ndarray:
    with h5py.File(path, "r") as file:
        return np.asarray(file[name][()])


def files(folder: Path) -> dict[str, np.ndarray]:
    """All images of a run."""
    return {
        str(path.relative_to(folder)): read(path) for top in ("reconstructions", "reference")
        for path in sorted((folder / top).rglob("*.h5"))
    }  # fmt: skip


def assert_same(actual: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert list(actual) == list(expected)
    for name, images in expected.items():
        assert actual[name].tobytes() == images.tobytes(), name


@pytest.fixture(scope="module")
def whole(demo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of three methods, not to be changed."""
    folder = tmp_path_factory.mktemp("whole")
    methods = ["--methods", "zero_filled", "cg_sense", "pics_wavelet"]
    run_recipe(SCRIPT, "--data_path", demo, "--output_path", folder / "out", *methods, *QUICK, cwd=folder)
    return folder / "out"


def copy_of(whole: Path, tmp_path: Path) -> Path:
    shutil.copytree(whole, tmp_path / "out")
    shutil.copytree(whole.parent / "cache", tmp_path / "cache")
    return tmp_path / "out"


def again(demo: Path, out: Path, *options: object, fails: bool = False) -> str:
    """The command once more, into a copy."""
    output = run_recipe(
        SCRIPT, "--data_path", demo, "--output_path", out, *QUICK, *options, cwd=out.parent, fails=fails
    )
    return output.stderr if fails else output.stdout


def dataset_of(demo: Path, whole: Path, split: str) -> IndexedSliceDataset:
    """Samples as the run had them."""
    mask_func = create_mask_for_mask_type("random", [0.2], [3])
    cache = whole.parent / "cache"
    transform = MoDLDataTransform(mask_func, sens_maps=SensMapCache(cache / "sens_maps"))
    return MriDataModule(demo, "multicoil", *[transform] * 3, cache_dir=cache, mask_func=mask_func).dataset(split)


METHODS = ("--methods", "zero_filled", "cg_sense", "pics_wavelet")


def test_weights_are_the_best_of_the_validation_split(demo: Path, whole: Path) -> None:
    document = json.loads((whole / "weights.json").read_text())
    val = {path.name for path in (demo / "multicoil_val").iterdir()}
    assert document["split"].endswith("multicoil_val")
    assert len(document["slices"]) == 2 and {row["volume"] for row in document["slices"]} <= val
    assert list(document["methods"]) == ["cg_sense", "pics_wavelet"]
    for found in document["methods"].values():
        scores = {row["weight"]: row["NRMSE"] for row in found["tried"]}
        assert found["NRMSE"] == min(scores.values()) == scores[found["weight"]]
        assert len(scores) >= 5 and len(set(scores.values())) == len(scores)
    tried = document["methods"]["cg_sense"]["tried"][0]
    error = energy = 0.0
    dataset = dataset_of(demo, whole, "val")
    for sample in (dataset[row["slice"]] for row in document["slices"]):  # of the only volume
        inputs = (sample.masked_kspace[None], sample.mask[None], sample.sens_maps[None])
        image = CLASSICAL_METHODS["cg_sense"](*inputs, tried["weight"])[0].abs()
        error += float((image - sample.reference.abs()).square().sum())
        energy += float(sample.reference.abs().square().sum())
    assert tried["NRMSE"] == pytest.approx((error / energy) ** 0.5, rel=1e-4)
    settings = json.loads((whole / "settings.json").read_text())
    assert settings["weights"] == {
        "zero_filled": None,
        **{name: found["weight"] for name, found in document["methods"].items()},
    }


def test_images_are_those_of_the_methods_with_their_weights(demo: Path, whole: Path) -> None:
    sample = dataset_of(demo, whole, "test")[1]
    inputs = (sample.masked_kspace[None], sample.mask[None], sample.sens_maps[None])
    weights = json.loads((whole / "settings.json").read_text())["weights"]
    for name, weight in weights.items():
        expected = CLASSICAL_METHODS[name](*inputs, weight)[0].abs().numpy()
        actual = whole / "reconstructions" / name / NAME
        np.testing.assert_allclose(read(actual)[1], expected, rtol=1e-4, atol=1e-5 * expected.max())
        np.testing.assert_array_equal(read(actual, "mask"), sample.mask.numpy().ravel())
    reference = read(whole / "reference" / NAME)[1]
    np.testing.assert_allclose(reference, sample.reference.abs().numpy(), rtol=1e-5)
    rows = {row["method"]: row for row in json.loads((whole / "scores.json").read_text())["volumes"]}
    for name in weights:
        image, target = (read(whole / folder / NAME) for folder in (f"reconstructions/{name}", "reference"))
        nrmse = np.linalg.norm(image - target) / np.linalg.norm(target)
        assert rows[CLASSICAL_METHODS[name].title]["NRMSE (coil-combined)"] == pytest.approx(nrmse, rel=1e-4)
    assert (whole / "reconstruction.png").is_file() and (whole / "pictures" / "file1002001.png").is_file()
    arguments = argparse.Namespace(
        target_path=demo / "multicoil_test", predictions_path=whole / "reconstructions" / "cg_sense",
        challenge="multicoil", acquisition=None, acceleration=None,
    )  # fmt: skip
    nmse = evaluate(arguments, "reconstruction_rss").means()["NMSE"]
    assert rows["CG-SENSE"]["NRMSE (RSS)"] ** 2 == pytest.approx(nmse, rel=1e-4)


def test_two_workers_make_the_same(demo: Path, whole: Path, tmp_path: Path) -> None:
    """Search and reconstruction; two devices of one worker are the same. All but the last score is known."""
    out = tmp_path / "out"
    out.mkdir()
    document = json.loads((whole / "weights.json").read_text())
    for found in document["methods"].values():
        del found["tried"][-1]
    (out / "weights.json").write_text(json.dumps(document))
    again(demo, out, *METHODS, "--num_workers", 1, "--devices", 2, "--strategy", "ddp")
    assert_same(files(out), files(whole))
    for name in ("weights.json", "settings.json", "scores.json"):
        assert json.loads((out / name).read_text()) == json.loads((whole / name).read_text())


def test_what_is_there_is_not_made_again_and_what_is_missing_is(demo: Path, whole: Path, tmp_path: Path) -> None:
    out = copy_of(whole, tmp_path)
    (out / "reconstructions" / "pics_wavelet" / NAME).unlink()
    (out / "scores.json").unlink()
    document = json.loads((out / "weights.json").read_text())
    document["methods"]["pics_wavelet"] = {"tried": document["methods"]["pics_wavelet"]["tried"][:3]}
    worst = max(document["methods"]["cg_sense"]["tried"], key=lambda row: row["NRMSE"])
    worst["NRMSE"] = 9.0  # it is not computed again
    (out / "weights.json").write_text(json.dumps(document))
    kept = out / "reconstructions" / "cg_sense" / NAME
    before = kept.stat().st_mtime_ns
    assert "3 of 4 files" in again(demo, out, *METHODS)
    assert kept.stat().st_mtime_ns == before
    assert_same(files(out), files(whole))
    found = json.loads((out / "weights.json").read_text())
    assert found["methods"]["cg_sense"] == document["methods"]["cg_sense"]
    expected = json.loads((whole / "weights.json").read_text())
    assert found["methods"]["pics_wavelet"] == expected["methods"]["pics_wavelet"]
    assert json.loads((out / "scores.json").read_text()) == json.loads((whole / "scores.json").read_text())


def test_a_method_is_added_and_weights_are_given_by_hand(demo: Path, whole: Path, tmp_path: Path) -> None:
    out = copy_of(whole, tmp_path)
    again(demo, out, "--methods", "zero_filled", "pics_tv", "--weights", "pics_tv=0.004")
    weights = json.loads((out / "weights.json").read_text())["methods"]
    assert weights["pics_tv"]["weight"] == 0.004 and weights["pics_tv"]["by hand"]
    assert len(weights["cg_sense"]["tried"]) >= 5
    assert set(json.loads((out / "settings.json").read_text())["weights"]) == {
        "zero_filled", "cg_sense", "pics_wavelet", "pics_tv",
    }  # fmt: skip
    expected = files(whole)
    assert_same({name: images for name, images in files(out).items() if "pics_tv" not in name}, expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--accelerations", 4], "made with mask .*accelerations.*not .*another folder"),
        (["--weights", "cg_sense=0.3"], "made with the weight of cg_sense 0.*, not 0.3"),
        (["--test_sample_rate", 0.5], "made with test_sample_rate None, not 0.5"),
        (["--search_slices", 1], "weights.json was made with slices"),
    ],
)
def test_other_settings_are_named(demo: Path, whole: Path, tmp_path: Path, options: list[Any], message: str) -> None:
    out = copy_of(whole, tmp_path)
    stderr = again(demo, out, *METHODS, *options, fails=True)
    assert re.search(message, stderr), stderr
    assert_same(files(out), files(whole))


def test_weights_are_never_searched_on_the_test(demo: Path, tmp_path: Path) -> None:
    shutil.copytree(demo / "multicoil_test", tmp_path / "data" / "multicoil_test")
    common = ("--output_path", tmp_path / "out", "--methods", "cg_sense", *QUICK)
    stderr = run_recipe(SCRIPT, "--data_path", tmp_path / "data", *common, cwd=tmp_path, fails=True).stderr
    assert "no volumes in" in stderr and "by hand: cg_sense=VALUE" in stderr
    val = demo / "multicoil_val"
    stderr = run_recipe(SCRIPT, "--data_path", demo, "--test_path", val, *common, cwd=tmp_path, fails=True).stderr
    assert "must not be chosen on their own test" in stderr and "by hand: cg_sense=VALUE" in stderr
    assert not (tmp_path / "out" / "weights.json").exists()
    run_recipe(SCRIPT, "--data_path", tmp_path / "data", *common, "--weights", "cg_sense=0.01", cwd=tmp_path)
    assert read(tmp_path / "out" / "reconstructions" / "cg_sense" / NAME).shape == (2, 48, 48)


def test_volumes_without_a_reference(demo: Path, whole: Path, tmp_path: Path) -> None:
    """Undersampled files with their mask, as in fastMRI's test split."""
    folder = tmp_path / "multicoil_test"
    folder.mkdir()
    mask = read(whole / "reconstructions" / "cg_sense" / NAME, "mask")
    with h5py.File(demo / "multicoil_test" / NAME) as full, h5py.File(folder / NAME, "w") as file:
        file["kspace"] = full["kspace"][()] * mask
        file["mask"] = mask
        file["ismrmrd_header"] = full["ismrmrd_header"][()]
        file.attrs.update(full.attrs)
    output = run_recipe(
        SCRIPT, "--data_path", demo, "--test_path", folder, "--output_path", tmp_path / "out", "--methods",
        "zero_filled", "cg_sense", *QUICK, cwd=tmp_path,
    )  # fmt: skip
    assert "Images:" in output.stdout
    images = files(tmp_path / "out")
    expected = files(whole)
    assert list(images) == [f"reconstructions/cg_sense/{NAME}", f"reconstructions/zero_filled/{NAME}"]
    for name in images:  # the weight is the same, and so are the samples
        np.testing.assert_allclose(images[name], expected[name], rtol=1e-3, atol=1e-3 * expected[name].max())
    assert not (tmp_path / "out" / "scores.json").exists() and not (tmp_path / "out" / "reference").exists()
    assert (tmp_path / "out" / "pictures" / "file1002001.png").is_file()


def test_an_interrupted_run_leaves_no_half_files(demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = ReconstructionWriter.add

    def interrupted(self: ReconstructionWriter, fname: str, slice_num: int, *args: Any, **options: Any) -> None:
        if slice_num == 1:
            raise KeyboardInterrupt
        original(self, fname, slice_num, *args, **options)

    monkeypatch.setattr(ReconstructionWriter, "add", interrupted)
    out = tmp_path / "out"
    command = (SCRIPT, "--data_path", demo, "--output_path", out, *QUICK, "--methods", "zero_filled")
    assert "the same command goes on" in run_recipe(*command, cwd=tmp_path, fails=True).stdout
    left = {path.name for path in out.rglob("*") if path.is_file()}
    assert left == {"settings.json", "weights.json"}
    monkeypatch.undo()
    run_recipe(*command, cwd=tmp_path)
    assert read(out / "reconstructions" / "zero_filled" / NAME).shape == (2, 48, 48)


def test_bad_flags_are_named(demo: Path, tmp_path: Path) -> None:
    for options, message in (
        (["--weights", "cg_sense"], "weights must be of the form METHOD=VALUE"),
        (["--weights", "cg_sense=0.1", "cg_sense=0.2"], "'cg_sense' is given twice"),
        (["--weights", "pics_tv=0.1", "--methods", "cg_sense"], "weights must be of the methods cg_sense"),
        (["--methods", "cg_sense", "--search_slices", 0], "search_slices must be at least 1"),
        (["--num_nodes", 2], "--devices times --num_nodes must be the number of processes"),
        (["--devices", 0], "--devices must be at least 1"),
        (["--strategy", "fsdp"], "--strategy must be auto or ddp"),
    ):
        command = (SCRIPT, "--data_path", demo, "--output_path", tmp_path / "out", *MASK, "--num_workers", 0)
        assert message in run_recipe(*command, *options, cwd=tmp_path, fails=True).stderr


@pytest.mark.skipif(not has_bart(), reason="BART is not installed")
def test_bart_by_its_flag(demo: Path, tmp_path: Path) -> None:
    weights = ["--weights", "bart_wavelet=0.01", "bart_tv=0.01", "--methods", "zero_filled", "--bart"]
    out = tmp_path / "out"
    run_recipe(SCRIPT, "--data_path", demo, "--output_path", out, *QUICK, *weights, cwd=tmp_path)
    means = {row["method"]: row for row in json.loads((out / "scores.json").read_text())["means"]}
    assert list(means) == ["zero-filled", "PICS, l1-wavelet (BART)", "PICS, total variation (BART)"]
    assert means["PICS, total variation (BART)"]["NRMSE (RSS)"] < means["zero-filled"]["NRMSE (RSS)"]


def test_two_processes_of_a_launcher_make_what_one_makes(demo: Path, tmp_path: Path) -> None:
    """Each of the two volumes of singlecoil has a process; whichever is last has the scores of both."""
    common = ["--challenge", "singlecoil", "--data_path", demo, *QUICK, "--methods", "cg_sense"]
    run_recipe(SCRIPT, *common, "--output_path", tmp_path / "one", cwd=tmp_path)

    def assert_same_run(out: Path) -> None:
        assert_same(files(out), files(tmp_path / "one"))
        for name in ("weights.json", "settings.json", "scores.json"):
            assert json.loads((out / name).read_text()) == json.loads((tmp_path / "one" / name).read_text())

    out = tmp_path / "two"
    command = [SCRIPT, *common, "--devices", 2, "--output_path", out]
    for rank in (1, 0):
        run_recipe(*command, cwd=tmp_path, environment={"SLURM_PROCID": str(rank), "SLURM_NTASKS": "2"})
        assert len(list((out / "reconstructions" / "cg_sense").iterdir())) == (1 if rank else 2)
        assert (out / "scores.json").exists() == (rank == 0)
    assert_same_run(out)
    # side by side
    command = [SCRIPT, *common, "--num_nodes", 2, "--output_path", tmp_path / "side_by_side"]
    with ThreadPoolExecutor() as pool:
        ranks = [{"RANK": str(rank), "WORLD_SIZE": "2"} for rank in range(2)]
        list(pool.map(lambda environment: run_process(*command, cwd=tmp_path, environment=environment), ranks))
    assert_same_run(tmp_path / "side_by_side")
    fewer = run_recipe(*command, cwd=tmp_path, environment={"RANK": "0", "WORLD_SIZE": "3"}, fails=True)
    assert "got 1 times 2 and 3" in fewer.stderr


def test_files_that_have_changed_are_named(demo: Path, whole: Path, tmp_path: Path) -> None:
    data, out = tmp_path / "data", tmp_path / "out"
    for split in ("multicoil_val", "multicoil_test"):
        shutil.copytree(demo / split, data / split)
    options = ("--data_path", data, "--output_path", out, "--methods", "cg_sense", *QUICK)
    run_recipe(SCRIPT, *options, cwd=tmp_path)
    made = files(out)
    (test,), (val,) = (list((data / f"multicoil_{split}").glob("*.h5")) for split in ("test", "val"))
    for path, message in ((test, rf"images of 1 files.* that have changed since: {NAME}"), (val, "made with slices")):
        before = path.stat().st_mtime_ns
        os.utime(path, ns=(before, before + 10**9))
        assert re.search(message, run_recipe(SCRIPT, *options, cwd=tmp_path, fails=True).stderr)
        os.utime(path, ns=(before, before))
    run_recipe(SCRIPT, *options, cwd=tmp_path)
    assert_same(files(out), made)


@pytest.mark.parametrize("copy", [shutil.copy, os.link])
def test_weights_are_not_searched_on_copies_of_the_test(demo: Path, tmp_path: Path, copy: Any) -> None:
    data = tmp_path / "data"
    (data / "multicoil_val").mkdir(parents=True)
    shutil.copytree(demo / "multicoil_test", data / "multicoil_test")
    copy(data / "multicoil_test" / NAME, data / "multicoil_val" / NAME)
    options = ("--data_path", data, "--output_path", tmp_path / "out", "--methods", "cg_sense", *QUICK)
    error = run_recipe(SCRIPT, *options, cwd=tmp_path, fails=True).stderr
    assert f"has 1 of the volumes of {data / 'multicoil_val'} ({NAME})" in error


def test_weights_by_hand_are_kept_beside_searched_ones(demo: Path, tmp_path: Path) -> None:
    options = ("--data_path", demo, "--output_path", tmp_path / "out", *QUICK, "--methods")
    run_recipe(SCRIPT, *options, "pics_tv", "--weights", "pics_tv=0.01", cwd=tmp_path)
    run_recipe(SCRIPT, *options, "cg_sense", cwd=tmp_path)
    methods = json.loads((tmp_path / "out" / "weights.json").read_text())["methods"]
    assert methods["pics_tv"]["weight"] == 0.01 and methods["pics_tv"]["by hand"] and methods["cg_sense"]["tried"]
