"""The comparison of two losses as a user types it: numbers from the written files, NIfTI files by subject."""

import functools
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fastmri
import fastmri.data.transforms
import h5py
import nibabel
import numpy as np
import pytest
import torch
from fastmri.data.transforms import to_tensor
from helpers import Output, run_process, run_recipe
from PIL import Image
from skimage.metrics import structural_similarity

from fastmri_ufloss.data import create_mask_for_mask_type

SCRIPT = "unet_dssim/train.py"
METHODS = {"zero_filled": "zero-filled", "net_mse": "Net-mse", "net_mse_dssim": "Net-mse-dssim"}
TINY = [
    "--accelerator", "cpu", "--num_workers", 0, "--max_epochs", 1, "--chans", 2, "--num_pool_layers", 1, "--lr", 0.01,
]  # fmt: skip

Call = Callable[..., Output]


@pytest.fixture
def call(tmp_path: Path) -> Call:
    """The script in this process, in an empty folder."""
    return functools.partial(run_recipe, SCRIPT, *TINY, cwd=tmp_path)


def images(folder: Path, name: str) -> np.ndarray:
    with h5py.File(folder / "reconstructions" / name) as file:
        return np.asarray(file["reconstruction"][()], dtype=np.float64)


def weights(run_dir: Path, net: str) -> dict[str, torch.Tensor]:
    checkpoint = torch.load(run_dir / net / "checkpoints" / "last.ckpt", weights_only=True)
    return {name: value for name, value in checkpoint["state_dict"].items() if name.startswith("unet.")}


def scores_of(target: np.ndarray, output: np.ndarray) -> dict[str, float]:
    """The scores of a volume by another way: scikit-image for both kinds of SSIM."""
    top = target.max()
    pairs = list(zip(target, output, strict=True))
    gaussian = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    mse = np.mean((target - output) ** 2) / top**2
    return {
        "SSIM": np.mean([structural_similarity(a, b, data_range=top) for a, b in pairs]),
        "SSIM (Gaussian)": np.mean([structural_similarity(a, b, data_range=top, **gaussian) for a, b in pairs]),
        "PSNR": 10 * np.log10(1 / mse),
        "relative error": np.mean([np.linalg.norm(a - b) / np.linalg.norm(a) for a, b in pairs]),
        "MSE": mse,
    }


def test_both_are_trained_and_the_table_is_that_of_the_files(demo: Path, tmp_path: Path) -> None:
    output = run_process(SCRIPT, "--data_path", demo, *TINY, cwd=tmp_path).stdout
    assert "Net-mse-dssim minus Net-mse, paired by subject" in output
    assert "Too few subjects" in output
    run_dir = tmp_path / "runs" / "unet_dssim"
    document = json.loads((run_dir / "scores.json").read_text())
    assert [row["method"] for row in document["means"]] == list(METHODS.values())
    rows = {(row["volume"], row["method"]): row for row in document["volumes"]}
    names = sorted(path.name for path in (demo / "singlecoil_test").glob("*.h5"))
    assert len(names) == 2 and len(rows) == 6
    for name in names:
        with h5py.File(demo / "singlecoil_test" / name) as file:
            target = np.asarray(file["reconstruction_esc"][()], dtype=np.float64)
            check_zero_filled(images(run_dir / "zero_filled", name), file["kspace"][()], name)
        for folder, method in METHODS.items():
            row = rows[name, method]
            assert row["subject"] == f"demo-{name.removesuffix('.h5')}"
            for metric, value in scores_of(target, images(run_dir / folder, name)).items():
                assert row[metric] == pytest.approx(value, rel=1e-4, abs=1e-6), (method, metric)
    for row in document["differences"]:
        pairs = [[rows[name, method][row["metric"]] for name in names] for method in ("Net-mse", "Net-mse-dssim")]
        assert row["difference"] == pytest.approx(np.mean(pairs[1]) - np.mean(pairs[0]))
        signs = np.sign(np.subtract(*pairs[::-1])) * (-1 if row["metric"] in ("relative error", "MSE") else 1)
        assert row["better in"] == f"{np.sum(signs > 0)} of 2"
    with Image.open(run_dir / "comparison.png") as picture:
        assert min(picture.size) > 400


def check_zero_filled(found: np.ndarray, kspace: np.ndarray, name: str) -> None:
    """The mask is that of fastMRI's transform, by the file's name, and nothing is clamped."""
    mask_func = create_mask_for_mask_type("variable_density_2d", [0.04], [10])
    masked = fastmri.data.transforms.apply_mask(to_tensor(kspace)[:1], mask_func, seed=tuple(map(ord, name)))[0]
    assert int((masked != 0).any(dim=-1).sum()) == round(48 * 48 / 10)
    expected = fastmri.complex_abs(fastmri.ifft2c(masked))[0].numpy()
    np.testing.assert_allclose(found[0], expected, rtol=1e-4, atol=1e-4 * expected.max())


def test_both_start_and_go_on_alike_but_for_the_loss(demo: Path, tmp_path: Path, call: Call) -> None:
    command = ["--data_path", demo, "--dssim_weight", 0]
    assert "loss l2=1" in call(*command, "--nets", "net_mse").stdout  # as two processes would
    assert "paired by subject" not in call(*command, "--nets", "net_mse_dssim").stdout
    call(*command)
    run_dir = tmp_path / "runs" / "unet_dssim"
    first, second = (weights(run_dir, net) for net in ("net_mse", "net_mse_dssim"))
    assert first and all(torch.equal(first[name], second[name]) for name in first)
    differences = json.loads((run_dir / "scores.json").read_text())["differences"]
    assert all(row["difference"] == 0 and row["p"] is None for row in differences)

    call(*command[:2], "--default_root_dir", "other", "--nets", "net_mse_dssim")
    third = weights(tmp_path / "other", "net_mse_dssim")
    assert not all(torch.equal(first[name], third[name]) for name in first)


def test_the_same_command_goes_on_and_what_is_trained_stays(demo: Path, tmp_path: Path, call: Call) -> None:
    command = ["--data_path", demo, "--nets", "net_mse"]
    call(*command)
    output = call(*command).stdout
    assert "Net-mse is trained" in output and "epoch 1" not in output
    output = call(*command, "--max_epochs", 2).stdout
    assert "Resuming from" in output and "epoch 2" in output and "epoch 1" not in output
    call(*command, "--max_epochs", 2, "--default_root_dir", "at_once")
    resumed, at_once = (
        weights(folder, "net_mse") for folder in (tmp_path / "runs" / "unet_dssim", tmp_path / "at_once")
    )
    assert all(torch.equal(resumed[name], at_once[name]) for name in resumed)
    for flags, message in (
        (["--max_epochs", 1], "was trained for 2 epochs, --max_epochs cannot become 1"),
        (["--max_epochs", 2, "--max_steps", 3], "was trained for 8 steps, --max_steps cannot become 3"),
        (["--batch_size", 2], "was trained with batch_size=1, not 2"),
        (["--accelerations", 4], r"was trained with accelerations=\[10\], not \[4\]"),
    ):
        assert re.search(message, call(*command, *flags, fails=True).stderr)


def save_nifti(path: Path, *, seed: int, shape: tuple[int, int, int] = (24, 20, 2)) -> np.ndarray:
    values = np.random.default_rng(seed).random(shape).astype(np.float32)
    path.parent.mkdir(exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(values, np.diag([-1.0, -1.0, 2.0, 1.0])), path)
    return values


NAMES = ("IXI002-Guys-0828-T1", "IXI012-HH-1211-T1", "IXI013-HH-1212-T1", "IXI013-HH-1212-T2")


@pytest.fixture
def nifti(tmp_path: Path) -> Path:
    """Four files of three subjects."""
    for number, name in enumerate(NAMES):
        save_nifti(tmp_path / "nifti" / f"{name}.nii.gz", seed=number)
    return tmp_path / "nifti"


def volumes(root: Path) -> dict[str, list[str]]:
    return {path.name: sorted(file.stem for file in path.glob("*.h5")) for path in sorted(root.glob("singlecoil_*"))}


def test_nifti_files_of_a_subject_stay_together(nifti: Path, tmp_path: Path, call: Call) -> None:
    call("--nifti", nifti, "--accelerations", 3)
    root = tmp_path / "runs" / "unet_dssim_data"
    assert volumes(root) == {"singlecoil_train": list(NAMES[:2]), "singlecoil_val": list(NAMES[2:])}
    with h5py.File(root / "singlecoil_train" / f"{NAMES[0]}.h5") as file:
        # rows run to the back and columns to the left, and there is neither noise nor phase
        magnitude = nibabel.load(nifti / f"{NAMES[0]}.nii.gz").get_fdata().transpose(2, 1, 0)
        image = fastmri.ifft2c(to_tensor(file["kspace"][()])).numpy()
        np.testing.assert_allclose(image[..., 0], magnitude, atol=1e-5)
        np.testing.assert_allclose(image[..., 1], 0, atol=1e-5)
        np.testing.assert_allclose(file["reconstruction_esc"][()], magnitude, atol=1e-5)
    document = json.loads((tmp_path / "runs" / "unet_dssim" / "scores.json").read_text())
    assert {row["subject"] for row in document["volumes"]} == {"IXI013"}
    zero_filled = [row["SSIM"] for row in document["volumes"] if row["method"] == "zero-filled"]
    assert len(zero_filled) == 2
    assert document["means"][0]["subjects"] == 1
    assert document["means"][0]["SSIM"] == pytest.approx(np.mean(zero_filled))

    stamps = [path.stat().st_mtime_ns for path in sorted(root.rglob("*.h5"))]
    call("--nifti", nifti, "--accelerations", 3)
    assert [path.stat().st_mtime_ns for path in sorted(root.rglob("*.h5"))] == stamps


def convert(call: Call, *options: object) -> None:
    """Stop behind the conversion."""
    assert "invalid strategy name" in call("--strategy", "none", *options, fails=True).stderr


def test_split_separator_and_axis_are_followed(nifti: Path, tmp_path: Path, call: Call) -> None:
    save_nifti(nifti / "IXI099-Guys-1-T1.nii", seed=9)
    convert(call, "--nifti", nifti, "--data_path", "a", "--split", 1, 1, 1)
    assert volumes(tmp_path / "a") == {
        "singlecoil_test": list(NAMES[2:]),
        "singlecoil_train": [NAMES[0]],
        "singlecoil_val": [NAMES[1]],
    }
    convert(call, "--nifti", nifti, "--data_path", "b", "--subject_separator=-T", "--slice_axis", "sagittal")
    subjects = json.loads((tmp_path / "b" / "subjects.json").read_text())
    assert subjects[f"{NAMES[3]}.h5"] == "IXI013-HH-1212"
    with h5py.File(tmp_path / "b" / "singlecoil_train" / f"{NAMES[0]}.h5") as file:
        assert file["kspace"].shape == (24, 2, 20)
    for flags, message in (
        (["--split", 2, 1, 0], "type --split as before"),
        (["--split", 1, 1, 1, "--slice_axis", "coronal"], "another slice_axis.*--data_path"),
    ):
        assert re.search(message, call("--nifti", nifti, "--data_path", "a", *flags, fails=True).stderr)


BAD: dict[str, tuple[list[Any], str]] = {
    "no folder": (["--nifti", "nowhere"], "no folder nowhere: check --nifti"),
    "no files": (["--nifti", "empty"], "empty must be NIfTI .*, or a folder of such, got none"),
    "one subject": (["--nifti", "one"], "1 subject, 'sub', are too few.*--subject_separator"),
    "no validation": (["--nifti", "nifti", "--split", 3, 0, 0], "--split must be numbers of subjects"),
    "too many": (["--nifti", "nifti", "--split", 3, 1, 0], "no more than the 3 of nifti"),
    "others": (["--nifti", "nifti", "--data_path", "others"], "is none of the volumes that nifti is to give"),
    "damaged": (["--nifti", "damaged"], "1 of 3 files of damaged were not converted"),
    "separator": (["--nifti", "nifti", "--subject_separator", ""], "at least one character"),
    "coils": (["--nifti", "nifti", "--challenge", "multicoil"], "makes single-coil volumes"),
    "no NIfTI files": (["--data_path", "others", "--split", 1, 1, 1], "--split is for NIfTI files"),
    "decay": (["--lr_gamma", 0.5], "--lr_gamma needs --lr_step_size"),
    "weight": (["--dssim_weight", -1], "--dssim_weight must be at least 0"),
    "resume": (["--resume", "some.ckpt"], "--resume FILE is for one network"),
    "no references": (["--data_path", "others", "--test_path", "empty"], "no volumes with 'reconstruction_esc'"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_named(case: str, demo: Path, nifti: Path, tmp_path: Path, call: Call) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "others").symlink_to(demo)
    for number in (1, 2):
        save_nifti(tmp_path / "one" / f"sub-0{number}_T1w.nii", seed=number)
        save_nifti(tmp_path / "damaged" / f"{number}-T1.nii", seed=number)
    (tmp_path / "damaged" / "3-T1.nii").write_bytes(b"text")
    options, message = BAD[case]
    assert re.search(message, call(*options, fails=True).stderr)
