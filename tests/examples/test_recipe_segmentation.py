"""The training of a segmentation network as a user types it, on volumes of 32x32, and what it says to bad input."""

import re
import runpy
import sys
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from helpers import ROOT

from fastmri_ufloss.models import load_segmenter

SCRIPT = ROOT / "fastmri_examples" / "adversarial_refinement" / "train_segmentation.py"
TINY = [
    *("--accelerator", "cpu", "--challenge", "singlecoil", "--data_path", "data", "--num_classes", 2),
    *("--chans", 4, "--num_levels", 2, "--batch_size", 2, "--lr", 0.02, "--log_every_n_steps", 1),
]

Call = Callable[..., str]


def write_volume(path: Path, *, seed: int, has_masks: bool = True) -> None:
    """Two slices of a bright square on noise, and its mask."""
    path.parent.mkdir(parents=True, exist_ok=True)
    masks = np.zeros((2, 32, 32), dtype=np.uint8)
    masks[:, 8 : 16 + seed, 10:20] = 1
    noise = np.random.default_rng(seed).random(masks.shape)
    with h5py.File(path, "w") as file:
        file["reconstruction_esc"] = ((masks + 0.3 * noise) * 1e-4).astype(np.float32)
        if has_masks:
            file["segmentation"] = masks


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Call:
    """The script in this process, in a folder with ``data``: what it prints, or the one line of its error."""
    write_volume(tmp_path / "data" / "singlecoil_train" / "a.h5", seed=1)
    write_volume(tmp_path / "data" / "singlecoil_val" / "b.h5", seed=2)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(torch, "set_float32_matmul_precision", lambda precision: None)  # it would stay set

    def run(*options: object) -> str:
        monkeypatch.setattr(sys, "argv", [str(SCRIPT), *map(str, (*TINY, *options))])
        runpy.run_path(str(SCRIPT), run_name="__main__")
        return capfd.readouterr().out

    return run


def test_a_network_is_trained_and_goes_on(call: Call, tmp_path: Path) -> None:
    run_dir = tmp_path / "runs" / "segmentation"
    out = call("--max_epochs", 1, "--loss", "dice_ce")
    first, first_best = re.findall(r"class 1: (0\.\d+)", out), (run_dir / "checkpoints" / "best.ckpt").read_bytes()
    assert len(first) == 1 and f"Segmentation network: {run_dir / 'checkpoints' / 'best.ckpt'}" in out
    last = torch.load(run_dir / "checkpoints" / "last.ckpt", weights_only=True)
    assert last["epoch"] == 0 and last["hyper_parameters"]["loss"] == "dice_ce"
    with pytest.raises(SystemExit, match=r"trained with loss=dice_ce, not cross_entropy: type the same flags again"):
        call("--max_epochs", 6)
    out = call("--max_epochs", 6, "--loss", "dice_ce")
    assert "Resuming from" in out
    last = torch.load(run_dir / "checkpoints" / "last.ckpt", weights_only=True)
    assert last["epoch"] == 5 and last["global_step"] == 6
    call("--max_epochs", 6, "--loss", "dice_ce", "--default_root_dir", "straight")
    straight = torch.load(tmp_path / "straight" / "checkpoints" / "last.ckpt", weights_only=True)
    torch.testing.assert_close(last["state_dict"], straight["state_dict"], atol=0, rtol=0)
    # what is printed and kept is the best of all epochs
    kept = next(state for state in last["callbacks"].values() if state.get("monitor") == "val_dice")
    best = float(kept["best_model_score"])
    assert f"class 1: {best:.4f}" in out and best == pytest.approx(max(best, float(kept["current_score"])))
    with h5py.File(tmp_path / "data" / "singlecoil_val" / "b.h5") as file:
        images, masks = torch.from_numpy(file["reconstruction_esc"][()]), file["segmentation"][()]
    labels = load_segmenter(run_dir / "checkpoints" / "best.ckpt")(images.unsqueeze(1)).numpy()
    dice = [2 * (a & b).sum() / (a.sum() + b.sum()) for a, b in zip(labels, masks, strict=True)]
    assert np.mean(dice) == pytest.approx(best, abs=1e-6)
    # the scores are those of the file
    (run_dir / "checkpoints" / "best.ckpt").write_bytes(first_best)
    assert re.findall(r"class 1: (0\.\d+)", call("--max_epochs", 6, "--loss", "dice_ce")) == first


def test_bad_input_is_named(call: Call, tmp_path: Path) -> None:
    write_volume(tmp_path / "bare" / "singlecoil_train" / "a.h5", seed=1, has_masks=False)
    write_volume(tmp_path / "half" / "singlecoil_train" / "a.h5", seed=1)
    write_volume(tmp_path / "odd" / "singlecoil_train" / "a.h5", seed=1)
    with h5py.File(tmp_path / "odd" / "singlecoil_train" / "a.h5", "a") as file:
        del file["segmentation"]
        file["segmentation"] = np.ones((2, 32, 30), dtype=np.uint8)
    for options, message in (
        (["--data_path", "nowhere"], "no data folder nowhere: check --data_path"),
        (["--data_path", "bare"], "a.h5; add it with python -m fastmri_ufloss.convert segmentation"),
        (["--data_path", "half"], "singlecoil_val"),
        (["--data_path", "odd"], r"a.h5: segmentation must be .* shape \(2, 32, 32\), got \(2, 32, 30\)"),
        (["--num_classes", 3], "singlecoil_train has class 2: a network of 3 classes cannot learn that"),
        (["--resume", "data/singlecoil_val/b.h5"], "b.h5 must be a file of torch.save"),
    ):
        with pytest.raises(SystemExit, match=rf"^error: .*{message}"):
            call(*options)
    assert not (tmp_path / "runs").exists()
