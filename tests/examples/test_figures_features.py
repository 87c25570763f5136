"""The figures of feature networks, as a user types them, on small images."""

import json
import shutil
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from helpers import run_recipe

from fastmri_ufloss.models import PatchFeatureNet, VGGFeatures

QUICK = {
    "noise_and_blur": ["--num_images", "2", "--stride", "16"],
    "deblurring": ["--num_steps", "4", "--measure_every", "2", "--stride", "8", "--measure_stride", "8"],
    "retrieval": ["--bank_size", "10", "--num_found", "2", "--num_queries", "2"],
    "correlation_maps": ["--stride", "8"],
}


@pytest.fixture(scope="module")
def nets(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    files = {}
    for in_chans in (1, 2):
        torch.manual_seed(0)
        files[in_chans] = tmp_path_factory.mktemp(f"net{in_chans}") / "feature_net.safetensors"
        PatchFeatureNet(in_chans, patch_size=32, num_features=8).save(files[in_chans])
    return files


def run(name: str, net: Path, data: Path, *options: Any, cwd: Path, fails: bool = False) -> Any:
    """The JSON document, or the error."""
    command = ["--feature_net", net, "--data_path", data, "--output", f"out/{name}.png", *QUICK[name], *options]
    output = run_recipe(f"figures/{name}.py", *command, cwd=cwd, fails=fails)
    if fails:
        return output.stderr
    assert (cwd / "out" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    return json.loads((cwd / "out" / f"{name}.json").read_text())


def write_leaderboard(folder: Path, count: int = 2, *, shape: tuple[int, ...] = (3, 40, 36)) -> Path:
    folder.mkdir()
    for number in range(count):
        values = np.random.default_rng(number).random(shape).astype(np.float32)
        with h5py.File(folder / f"file{number}.h5", "w") as file:
            file["reconstruction"] = values
    return folder


@pytest.mark.parametrize(("challenge", "in_chans"), [("multicoil", 2), ("singlecoil", 2), ("multicoil", 1)])
def test_noise_and_blur(demo: Path, nets: dict[int, Path], tmp_path: Path, challenge: str, in_chans: int) -> None:
    found = run("noise_and_blur", nets[in_chans], demo, "--challenge", challenge, cwd=tmp_path)
    assert found["images"] == [f"file{n}, slice {i}" for n, i in (
        ((1002001, 0), (1002001, 1)) if challenge == "multicoil" else ((1002001, 1), (1002002, 1))
    )]  # fmt: skip
    for kind in ("noise", "blur"):
        assert list(found["curves"][kind]) == ["UFLoss", "MSE", "DSSIM"]
        values = np.array(found["values"][kind]["UFLoss"])
        assert values.shape == (2, 11) and (values[:, 0] == 0).all() and (values[:, 1:] > 0).all()
        np.testing.assert_allclose(found["curves"][kind]["UFLoss"]["mean"], values.mean(axis=0))
        # so small an image keeps the same lines of k-space at two of the levels of blur
        assert found["curves"][kind]["MSE"]["spearman"] > (0.99 if kind == "blur" else 1 - 1e-9)


def test_vgg_and_seed_change_the_curves(demo: Path, nets: dict[int, Path], tmp_path: Path) -> None:
    torch.manual_seed(0)
    torch.save(VGGFeatures("vgg16").state_dict(), tmp_path / "vgg.pt")
    first = run("noise_and_blur", nets[1], demo, "--vgg_weights", "vgg.pt", cwd=tmp_path)
    assert list(first["curves"]["blur"]) == ["UFLoss", "MSE", "DSSIM", "VGG"]
    again, other = (run("noise_and_blur", nets[1], demo, "--seed", seed, cwd=tmp_path) for seed in (0, 7))
    assert again["values"]["noise"]["MSE"] == first["values"]["noise"]["MSE"] != other["values"]["noise"]["MSE"]
    assert first["values"]["blur"]["MSE"] == other["values"]["blur"]["MSE"]
    error = run("noise_and_blur", nets[1], demo, "--vgg_weights", "no.pt", cwd=tmp_path, fails=True)
    assert "no weights of vgg16 at no.pt" in error


def test_deblurring(demo: Path, nets: dict[int, Path], tmp_path: Path) -> None:
    found = run("deblurring", nets[2], demo, "--size", 40, "--num_images", 3, cwd=tmp_path)
    assert found["steps"] == [0, 1, 2, 4] and found["size"] == [40, 40] and found["optimizer"] == "sgd"
    assert found["image"] == "file1002001, slice 1"
    assert found["ufloss_ratio"] == found["ufloss"][-1] / found["ufloss"][0]
    adam = run("deblurring", nets[2], demo, "--optimizer", "adam", "--slice", 0, "--factor", 2, cwd=tmp_path)
    assert adam["image"] == "file1002001, slice 0" and adam["size"] == [48, 48]
    assert adam["nrmse"][0] != found["nrmse"][0]


def test_retrieval_leaves_the_own_subject_out(demo: Path, nets: dict[int, Path], tmp_path: Path) -> None:
    folder = demo / "multicoil_train"
    found = run("retrieval", nets[1], folder, cwd=tmp_path)
    assert found["bank_size"] == 10 and len(found["queries"]) == 2
    for query in found["queries"]:
        others = {row["volume"] for row in (*query["nearest"], *query["farthest"])}
        assert len(others) == 1 and query["volume"] not in others
        near, far = ([row["inner_product"] for row in query[side]] for side in ("nearest", "farthest"))
        assert near == sorted(near, reverse=True) and far == sorted(far) and near[-1] >= far[-1]
    cached = sorted((tmp_path / "out" / "cache" / "features").iterdir())
    times = [file.stat().st_mtime_ns for file in cached]
    again = run("retrieval", nets[1], folder, cwd=tmp_path)
    assert again["queries"] == found["queries"]
    assert len(cached) == 2 and [file.stat().st_mtime_ns for file in cached] == times


def test_retrieval_goes_on_where_it_was_interrupted(demo: Path, nets: dict[int, Path], tmp_path: Path) -> None:
    found = run("retrieval", nets[1], demo, cwd=tmp_path)
    cached = sorted((tmp_path / "out" / "cache" / "features").iterdir())
    times = [file.stat().st_mtime_ns for file in cached]
    cached[1].unlink()
    assert run("retrieval", nets[1], demo, cwd=tmp_path)["queries"] == found["queries"]
    assert cached[0].stat().st_mtime_ns == times[0] and cached[1].is_file()
    # another network, seed or size has files of its own
    for options in (["--seed", 1], ["--bank_size", 12]):
        before = len(list(cached[0].parent.iterdir()))
        run("retrieval", nets[1], demo, *options, cwd=tmp_path)
        assert len(list(cached[0].parent.iterdir())) == before + 2


def test_query_is_the_one_that_was_typed(demo: Path, nets: dict[int, Path], tmp_path: Path) -> None:
    found = run("retrieval", nets[2], demo, "--query", "file1002001", 1, 3, 16, cwd=tmp_path)
    (query,) = found["queries"]
    assert (query["volume"], query["slice"], query["corner"]) == ("file1002001.h5", 1, [3, 16])
    error = run("retrieval", nets[2], demo, "--query", "file1002001", 1, 3, 17, cwd=tmp_path, fails=True)
    assert "patches of 32x32 inside the image of 48x48" in error
    error = run("retrieval", nets[2], demo, "--query", "nobody", 1, 3, 16, cwd=tmp_path, fails=True)
    assert "has no volume 'nobody', only file1002001" in error


def test_correlation_maps_of_another_subject_and_contrast(demo: Path, nets: dict[int, Path], tmp_path: Path) -> None:
    shutil.copytree(demo / "singlecoil_train", tmp_path / "data")
    shutil.copy(demo / "singlecoil_val" / "file1001001.h5", tmp_path / "data")
    names = ["file1000001", "file1000002", "file1001001"]
    for name, contrast in zip(names, ("PD", "PDFS", "PD"), strict=True):
        with h5py.File(tmp_path / "data" / f"{name}.h5", "r+") as file:
            file.attrs["acquisition"] = contrast
    options = ["--challenge", "singlecoil", "--other_data_path", demo / "singlecoil_test", "--patch", 8, 16]
    found = run("correlation_maps", nets[2], tmp_path / "data", *options, cwd=tmp_path)
    (patch,) = found["patches"]
    assert patch["corner"] == [8, 16]
    assert [row["image"] for row in patch["images"]] == [
        "same image: file1000001, slice 1",
        "another subject: file1001001, slice 1",
        "another subject and contrast: file1000002, slice 1",
        "other data: file1002002, slice 1",
    ]
    for measure in ("UFLoss", "SSIM"):
        assert patch["images"][0][measure]["best"] == pytest.approx(1.0, abs=1e-4)
        assert patch["images"][0][measure]["best_corner"] == [8, 16]
    assert (tmp_path / "out" / "correlation_maps_best.png").is_file()


def test_correlation_maps_say_what_the_data_do_not_have(demo: Path, nets: dict[int, Path], tmp_path: Path) -> None:
    command = ["--feature_net", nets[1], "--data_path", demo, "--output", "maps.png", "--stride", 4]
    output = run_recipe("figures/correlation_maps.py", *command, cwd=tmp_path).stdout
    assert "no other subject with contrast" in output and "no other subject with another contrast" in output
    assert (tmp_path / "maps.png").is_file() and not (tmp_path / "maps_best.png").exists()


@pytest.mark.parametrize("name", QUICK)
def test_leaderboard_files_are_magnitudes(nets: dict[int, Path], tmp_path: Path, name: str) -> None:
    folder = write_leaderboard(tmp_path / "results")
    run(name, nets[1], folder, cwd=tmp_path)
    error = run(name, nets[2], folder, cwd=tmp_path, fails=True)
    assert "has no k-space, so no complex images" in error and "feature network of 1 channel" in error


@pytest.mark.parametrize("name", QUICK)
def test_too_small_images_are_named(nets: dict[int, Path], tmp_path: Path, name: str) -> None:
    folder = write_leaderboard(tmp_path / "results", shape=(2, 40, 31))
    error = run(name, nets[1], folder, cwd=tmp_path, fails=True)
    assert "has images of 40x31, smaller than the patches of the feature network, 32x32" in error


BAD = {
    "missing network": (["--feature_net", "no.safetensors"], "no feature network at no.safetensors"),
    "missing folder": (["--data_path", "nowhere"], "no data folder nowhere"),
    "no volumes": (["--data_path", "."], "no HDF5 volumes"),
    "number": (["--num_images", "0"], "number of images must be at least 1, got 0"),
    "picture": (["--output", "out.txt"], "--output must end in one of .png, .pdf, got out.txt"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_named(nets: dict[int, Path], tmp_path: Path, case: str) -> None:
    options, message = BAD[case]
    folder = write_leaderboard(tmp_path / "results", 1, shape=(1, 40, 36))
    assert message in run("noise_and_blur", nets[1], folder, *options, cwd=tmp_path, fails=True)


def test_images_that_cannot_be_used_are_named(demo: Path, nets: dict[int, Path], tmp_path: Path) -> None:
    folder = write_leaderboard(tmp_path / "results", 1, shape=(2, 40, 36))
    with h5py.File(folder / "file0.h5", "r+") as file:
        file["reconstruction"][0] = 0
    with pytest.warns(UserWarning, match=r"file0\.h5: slice 0 has no signal: left out"):
        found = run("noise_and_blur", nets[1], folder, cwd=tmp_path)
    assert found["images"] == ["file0, slice 1"]
    with h5py.File(folder / "file0.h5", "r+") as file:
        file["reconstruction"][1, 0, 0] = np.nan
    error = run("noise_and_blur", nets[1], folder, cwd=tmp_path, fails=True)
    assert "slice 1 has NaN or infinite values" in error
    shutil.copytree(demo / "multicoil_test", tmp_path / "under")
    with h5py.File(tmp_path / "under" / "file1002001.h5", "r+") as file:
        file["kspace"][..., 1::2] = 0
    error = run("noise_and_blur", nets[2], tmp_path / "under", cwd=tmp_path, fails=True)
    assert "file1002001.h5 is undersampled" in error


def test_too_few_subjects_for_a_bank_are_named(nets: dict[int, Path], tmp_path: Path) -> None:
    folder = write_leaderboard(tmp_path / "results", 1)
    error = run("retrieval", nets[1], folder, cwd=tmp_path, fails=True)
    assert "the bank must have 2 patches of other subjects than file0, got 0" in error


def test_without_a_network_it_says_how_to_train_one(demo: Path, tmp_path: Path) -> None:
    command = ["--data_path", demo, "--output", "a.png"]
    error = run_recipe("figures/noise_and_blur.py", *command, cwd=tmp_path, fails=True).stderr
    assert "no --feature_net" in error and "modl_ufloss/pretrain.py --challenge multicoil --data_path" in error
    torch.manual_seed(0)
    PatchFeatureNet(2, patch_size=32, num_features=8).save(tmp_path / "runs/feature_net/feature_net.safetensors")
    output = run_recipe("figures/noise_and_blur.py", *command, *QUICK["noise_and_blur"], cwd=tmp_path).stdout
    assert "Feature network: runs/feature_net/feature_net.safetensors" in output
