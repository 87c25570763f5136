"""The scripts as a user types them, on a tiny demo data set, and what they say to bad input."""

import json
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from helpers import run_process, run_recipe

from fastmri_ufloss.models import PatchFeatureNet

QUICK = ["--accelerator", "cpu", "--num_workers", "0", "--max_epochs", "1", "--limit_train_batches", "2"]
TINY = [
    "--chans",
    "2",
    "--num_layers",
    "2",
    "--num_unrolls",
    "1",
    "--center_fractions",
    "0.2",
    "--accelerations",
    "3",
]


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    file = tmp_path_factory.mktemp("net") / "feature_net.safetensors"
    PatchFeatureNet(2, patch_size=32, num_features=8).save(file)
    return file


@pytest.mark.parametrize("challenge", ["multicoil", "singlecoil"])
def test_pretrain_train_resume_test_reconstruct(demo: Path, tmp_path: Path, challenge: str) -> None:
    common = ["--challenge", challenge, "--data_path", demo, *QUICK]
    if challenge == "multicoil":
        run_recipe(
            "modl_ufloss/pretrain.py", *common, *TINY[-4:], "--patch_size", 32, "--patches_per_slice", 4,
            "--num_features", 8, "--batch_size", 4, cwd=tmp_path,
        )  # fmt: skip
        loss = [
            "--feature_net",
            "runs/feature_net/feature_net.safetensors",
            "--stride",
            8,
            "--score_stride",
            8,
        ]
    else:
        loss = ["--loss", "l1=1", "ssim=0.5"]
    train = ["modl_ufloss/train.py", *common, *TINY, *loss]
    first_run = run_process if challenge == "multicoil" else run_recipe
    output = first_run(*train, cwd=tmp_path).stdout
    folder = tmp_path / "runs" / "modl_ufloss"
    assert "CG-SENSE" in output and str(Path("runs") / "modl_ufloss" / "reconstruction.png") in output
    assert {"best.ckpt", "last.ckpt"} <= {p.name for p in (folder / "checkpoints").iterdir()}
    assert list((folder / "tensorboard").rglob("events*"))
    first = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)

    output = run_recipe(*train, "--max_epochs", 3, "--check_val_every_n_epoch", 2, cwd=tmp_path).stdout
    assert "Resuming from" in output
    second = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    assert (first["global_step"], second["global_step"]) == (2, 6)

    assert "CG-SENSE" in run_recipe(*train, "--mode", "test", cwd=tmp_path).stdout
    with h5py.File(folder / "reconstructions" / "file1002001.h5") as file:
        tested = file["reconstruction"][()]
    assert tested.shape == (2, 48, 48)

    run_recipe(
        "modl_ufloss/reconstruct.py", "--checkpoint", folder / "checkpoints" / "best.ckpt", "--challenge", challenge,
        "--data_path", demo / f"{challenge}_test", "--output_path", "out", "--num_workers", 0,
        "--mask_type", "random", *TINY[-4:], cwd=tmp_path,
    )  # fmt: skip
    with h5py.File(tmp_path / "out" / "reconstructions" / "modl" / "file1002001.h5") as file:
        np.testing.assert_allclose(file["reconstruction"][()], tested, rtol=1e-2, atol=1e-2 * tested.max())


def test_varnet_trains_and_tests_with_the_same_flags(demo: Path, tmp_path: Path) -> None:
    options = [
        "--challenge", "multicoil", "--data_path", demo, *QUICK, *TINY[-4:], "--num_cascades", 1, "--chans", 2,
        "--pools", 1, "--sens_chans", 2, "--sens_pools", 1,
    ]  # fmt: skip
    run_recipe("varnet/train.py", *options, "--loss", "l1=1", "--batch_size", 2, cwd=tmp_path)
    run_recipe("varnet/train.py", *options[:12], "--mode", "test", "--batch_size", 2, cwd=tmp_path)  # no model flags
    assert (tmp_path / "runs" / "varnet" / "reconstructions" / "file1002001.h5").is_file()


def test_reconstruction_has_the_virtual_coils_of_the_training(demo: Path, tmp_path: Path) -> None:
    train = ["modl_ufloss/train.py", "--data_path", demo, *QUICK, *TINY, "--loss", "l2"]
    # validated once, although the run is shorter than the interval
    run_recipe(*train, "--num_virtual_coils", 3, "--check_val_every_n_epoch", 5, cwd=tmp_path)
    folder = tmp_path / "runs" / "modl_ufloss"
    checkpoint = folder / "checkpoints" / "best.ckpt"
    images = []
    for typed in ([], ["--num_virtual_coils", "null"]):
        run_recipe(
            "modl_ufloss/reconstruct.py", "--checkpoint", checkpoint, "--data_path", demo / "multicoil_test",
            "--output_path", f"out{len(typed)}", "--num_workers", 0, "--accelerator", "cpu", "--mask_type", "random",
            *TINY[-4:], *typed, cwd=tmp_path,
        )  # fmt: skip
        with h5py.File(tmp_path / f"out{len(typed)}" / "reconstructions" / "modl" / "file1002001.h5") as file:
            images.append(file["reconstruction"][()])
    with h5py.File(folder / "reconstructions" / "file1002001.h5") as file:
        tested = file["reconstruction"][()]
    errors = [np.linalg.norm(image - tested) / np.linalg.norm(tested) for image in images]
    assert errors[0] < 1e-2 < 2e-2 < errors[1]
    error = run_recipe(*train, "--num_virtual_coils", 2, cwd=tmp_path, fails=True).stderr
    assert "was trained with num_virtual_coils=3, not 2" in error
    error = run_recipe(
        "unet/train.py", "--data_path", demo, "--num_virtual_coils", 2, cwd=tmp_path, fails=True
    ).stderr
    assert "--num_virtual_coils is for MoDL and RecNet" in error


def test_paths_come_from_fastmri_dirs_yaml(demo: Path, tmp_path: Path) -> None:
    (tmp_path / "fastmri_dirs.yaml").write_text(f"knee_path: {demo}\nbrain_path: /path/to/brain\nlog_path: logs\n")
    run_recipe("modl_ufloss/train.py", *QUICK, *TINY, "--loss", "l2", "--no-score", cwd=tmp_path)
    assert (tmp_path / "logs" / "modl_ufloss" / "checkpoints" / "last.ckpt").is_file()
    assert not (tmp_path / "logs" / "demo_data").exists()


BAD = {
    "missing folder": (["--data_path", "nowhere"], "no data folder nowhere"),
    "empty folder": (["--data_path", "."], "no folder multicoil_train"),
    "unknown loss": (["--loss", "vgg=1"], "unknown name 'vgg' in 'vgg=1', known are l1, l2, nmse, ssim"),
    "weight": (["--loss", "l2=much"], "weight of 'l2' must be a number"),
    "negative weight": (["--loss", "l2=-1"], "weight of 'l2' must be a number >= 0"),
    "twice": (["--loss", "l2=1", "l2=2"], "'l2' is given twice"),
    "acceleration": (["--accelerations", "0"], "accelerations must be at least 1"),
    "center": (["--center_fractions", "0.05"], "at least 4 are needed"),
    "mask type": (["--mask_type", "spiral"], "mask_type must be one of"),
    "two centers": (["--center_size", "8", "--center_fractions", "0.2"], "type one of the two"),
    "feature net": (["--feature_net", "nothing.safetensors"], "nothing.safetensors"),
    "pools": (["--num_pools", "2"], "--num_pools is not for --denoiser cnn"),
    "layers": (["--denoiser", "unet"], "--num_layers is not for --denoiser unet"),
    "decay": (["--lr_gamma", "0.5"], "--lr_gamma is for a learning rate with --lr_step_size"),
    "warm-up": (["--lr_step_size", "3", "--warmup_steps", "3"], "--warmup_steps is for a learning rate without"),
    "band": (["--train_rows", "0"], "train_rows must be at least 1, got 0"),
    "band of points": (
        ["--mask_type", "poisson_2d", "--center_size", "8", "--accelerations", "3", "--train_rows", "8"],
        "train_rows is for masks of columns",
    ),
    "virtual coils": (["--num_virtual_coils", "0"], "num_virtual_coils must be at least 1, got 0"),
    "one coil": (
        ["--challenge", "singlecoil", "--num_virtual_coils", "2"],
        "--num_virtual_coils is for --challenge multicoil",
    ),
    "sets of own maps": (["--sens_maps_path", ".", "--num_maps", "2"], "--num_maps is for maps that are computed"),
    "band of ssim": (["--loss", "ssim", "--train_rows", "6"], "ssim needs images of at least 7x7, got (6, 48)"),
    "validation": (["--check_val_every_n_epoch", "0"], "check_val_every_n_epoch must be at least 1, got 0"),
    "classical": (["--classical", "zero_filled"], "classical"),
    "own maps": (["--sens_maps_path", "nowhere"], "no folder nowhere with coil maps"),
    "resume": (["--resume", "nothing.ckpt"], "no checkpoint nothing.ckpt"),
    "not a checkpoint": (["--resume", "text.ckpt"], "text.ckpt must be a file of torch.save"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_named(demo: Path, tmp_path: Path, case: str) -> None:
    options, message = BAD[case]
    (tmp_path / "text.ckpt").write_text("hello")
    data = [] if "--data_path" in options else ["--data_path", demo]
    loss = [] if "--loss" in options or "--feature_net" in options else ["--loss", "l2"]
    error = run_recipe(
        "modl_ufloss/train.py", *data, *QUICK, *TINY[:6], *loss, *options, cwd=tmp_path, fails=True
    ).stderr
    assert message in error


def test_error_in_a_worker_is_named(demo: Path, tmp_path: Path) -> None:
    shutil.copytree(demo, tmp_path / "data")
    with h5py.File(tmp_path / "data" / "multicoil_train" / "file1000001.h5", "r+") as volume:
        volume["kspace"][:, 0, 0, 0] = np.nan
    options = ["--data_path", "data", *QUICK, *TINY, "--loss", "l2", "--num_workers", 1]
    error = run_process("modl_ufloss/train.py", *options, cwd=tmp_path, fails=True).stderr
    assert "error: file1000001.h5, slice" in error and "k-space has NaN or infinite values" in error


def test_feature_net_that_does_not_fit_is_named(demo: Path, tmp_path: Path) -> None:
    for net, message in (
        (PatchFeatureNet(1, patch_size=32, num_features=8), "need one of 2: 'general', or train one"),
        (PatchFeatureNet(2, patch_size=60, num_features=8), "60x60"),
    ):
        net.save(tmp_path / "net.safetensors")
        options = ["--data_path", demo, *QUICK, *TINY, "--feature_net", "net.safetensors"]
        assert message in run_recipe("modl_ufloss/train.py", *options, cwd=tmp_path, fails=True).stderr


def test_another_model_is_not_resumed(demo: Path, tmp_path: Path) -> None:
    options = ["--data_path", demo, *QUICK, *TINY, "--loss", "l2", "--no-score"]
    run_recipe("modl_ufloss/train.py", *options, cwd=tmp_path)
    error = run_recipe("modl_ufloss/train.py", *options, "--num_unrolls", 2, cwd=tmp_path, fails=True).stderr
    assert "was trained with num_unrolls=1, not 2" in error and "--resume never" in error
    run_recipe("modl_ufloss/train.py", *options, "--num_unrolls", 2, "--resume", "never", cwd=tmp_path)


def test_scores_are_written_as_json(demo: Path, net: Path, tmp_path: Path) -> None:
    options = ["--data_path", demo, *QUICK, *TINY, "--feature_net", net, "--stride", 8, "--score_stride", 8]
    folder = tmp_path / "runs" / "modl_ufloss"
    run_recipe("modl_ufloss/train.py", *options, "--classical", "pics_tv", cwd=tmp_path)
    means = json.loads((folder / "scores.json").read_text())["means"]
    assert [row["method"] for row in means] == ["zero-filled", "CG-SENSE", "PICS, total variation", "MoDL"]
    assert all("UFLoss" in row for row in means)
    searched = json.loads((folder / "weights.json").read_text())
    assert searched["split"] == str(demo / "multicoil_train")  # never what is scored
    weight = searched["methods"]["pics_tv"]["weight"]
    assert f"pics_tv {weight:g}" in run_recipe(
        "modl_ufloss/train.py", *options, "--classical", "pics_tv", "--mode", "test", cwd=tmp_path
    ).stdout  # fmt: skip
    assert json.loads((folder / "scores.json").read_text())["means"] == means
