"""The settings of a run in its folder: they repeat it, and a run that goes on is compared with them."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from helpers import EXAMPLES, run_recipe

sys.path.insert(0, str(EXAMPLES))
import recipe

SCRIPT = "modl_ufloss/train.py"
TINY = [
    *("--accelerator", "cpu", "--num_workers", 0, "--max_epochs", 1, "--limit_train_batches", 2, "--no-score"),
    *("--chans", 2, "--num_layers", 2, "--num_unrolls", 1, "--accelerations", 3, "--center_fractions", 0.2),
]
PATCHES = ["--patch_size", 40, "--stride", 8]


def state(folder: Path) -> dict[str, torch.Tensor]:
    return dict(torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"])


def test_the_file_of_a_run_repeats_it_bit_for_bit(demo: Path, tmp_path: Path) -> None:
    run_recipe(SCRIPT, "--data_path", demo, *TINY, *PATCHES, "--loss", "l2=1", "ufloss=auto:0:1@0-2", cwd=tmp_path)
    first = tmp_path / "runs" / "modl_ufloss"
    run_recipe(SCRIPT, "--config", first / "config.yaml", "--default_root_dir", "again", cwd=tmp_path)
    weights, again = state(first), state(tmp_path / "again")
    assert weights.keys() == again.keys() and all(torch.equal(weights[name], again[name]) for name in weights)
    settings, repeated = (
        yaml.safe_load((folder / "config.yaml").read_text()) for folder in (first, tmp_path / "again")
    )
    assert settings.pop("default_root_dir") is None and repeated.pop("default_root_dir") == "again"
    assert settings == repeated
    assert settings["loss"] == ["l2=1", "ufloss=auto:0:1@0-2"] and settings["data_path"] == str(demo)


def test_the_file_of_a_pretraining_repeats_it_bit_for_bit(demo: Path, tmp_path: Path) -> None:
    command = ["--data_path", demo, "--accelerator", "cpu", "--num_workers", 0, "--max_epochs", 1, "--patch_size", 40]
    command += ["--patches_per_slice", 2, "--architecture", "narrow", "--width", 4, "--batch_size", 4]
    run_recipe("modl_ufloss/pretrain.py", *command, "--center_fractions", 0.2, "--accelerations", 3, cwd=tmp_path)
    folder = tmp_path / "runs" / "feature_net"
    run_recipe(
        "modl_ufloss/pretrain.py", "--config", folder / "config.yaml", "--default_root_dir", "net", cwd=tmp_path
    )
    expected = (folder / "feature_net.safetensors").read_bytes()
    assert (tmp_path / "net" / "feature_net.safetensors").read_bytes() == expected


def test_a_run_goes_on_with_the_same_settings_only(demo: Path, tmp_path: Path) -> None:
    command = [SCRIPT, "--data_path", demo, *TINY, "--loss", "l2"]
    run_recipe(*command, cwd=tmp_path)
    folder = tmp_path / "runs" / "modl_ufloss"
    for flags, message in (
        (["--lr", 0.5], "was trained with lr=0.002, not 0.5"),
        (["--normalize_losses"], "was trained with normalize_losses=False, not True"),
        (["--resume", folder / "checkpoints" / "last.ckpt", "--chans", 4], "was trained with chans=2, not 4"),
    ):
        error = run_recipe(*command, *flags, cwd=tmp_path, fails=True).stderr
        assert message in error and "--resume never or another --default_root_dir" in error
    # what has no influence may change
    flags = ["--max_epochs", 2, "--log_every_n_steps", 1, "--num_log_images", 2, "--checkpoint_every_n_steps", 3]
    assert "Resuming from" in run_recipe(*command, *flags, cwd=tmp_path).stdout
    assert yaml.safe_load((folder / "config.yaml").read_text())["max_epochs"] == 2


def test_a_run_goes_on_with_what_is_left(demo: Path, tmp_path: Path) -> None:
    command = [SCRIPT, "--data_path", demo, *TINY, "--loss", "l2"]
    run_recipe(*command, cwd=tmp_path)
    folder = tmp_path / "runs" / "modl_ufloss" / "checkpoints"
    whole = (folder / "last.ckpt").read_bytes()
    (folder / "best.ckpt").write_bytes(whole[:1000])
    said = run_recipe(*command, cwd=tmp_path).stdout
    assert "best.ckpt must be a file of torch.save" in said and "it is now best.damaged, and last.ckpt is" in said
    assert (folder / "best.damaged").stat().st_size == 1000 and not (folder / "best.ckpt").exists()
    content = torch.load(folder / "last.ckpt", weights_only=True)
    torch.save({**content, "loops": [], "callbacks": None}, folder / "last.ckpt")
    error = run_recipe(*command, cwd=tmp_path, fails=True).stderr
    assert "last.ckpt has no loops, callbacks: a training goes on from its own checkpoints" in error


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (b"knee_path: 3", "must hold names and paths, such as 'knee_path: /data/knee', got knee_path: 3"),
        (b"[/data]", "must hold names and values, got a list"),
        (b"knee_path: !!python/object:os.system {}", "could not determine a constructor"),
        (b"knee_path: &a {x: *a}", "must hold names and paths"),
        (b"\xff\xfe\0", "not a YAML file of plain values"),
        (b"[" * 9000, "not a YAML file of plain values"),
    ],
)
def test_files_of_paths_and_settings_hold_plain_values(
    text: bytes, problem: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("fastmri_dirs.yaml").write_bytes(text)
    with pytest.raises(ValueError, match=f"fastmri_dirs.yaml .*{problem}"):
        recipe.log_path()


def test_settings_that_contain_themselves_are_refused(tmp_path: Path) -> None:
    (tmp_path / "some.yaml").write_text("loss: &a [*a]\n")
    error = run_recipe(SCRIPT, "--config", "some.yaml", cwd=tmp_path, fails=True).stderr
    assert "error: --config must hold plain settings" in error


def test_settings_of_the_paper(demo: Path, tmp_path: Path) -> None:
    file = EXAMPLES / "modl_ufloss" / "configs" / "paper.yaml"
    command = [SCRIPT, "--config", file, "--data_path", demo]
    printed = yaml.safe_load(run_recipe(*command, "--print_config", cwd=tmp_path).stdout)
    assert (printed["denoiser"], printed["share_weights"], printed["train_rows"]) == ("unet", True, None)
    small = [*("--chans", 2, "--num_pools", 1, "--loss", "l2", "--accelerations", 3, "--center_fractions", 0.2)]
    run_recipe(*command, *small, "--num_workers", 0, "--max_epochs", 1, "--limit_train_batches", 1, cwd=tmp_path)
    assert (tmp_path / "runs" / "modl_ufloss" / "scores.json").is_file()


def test_settings_of_recnets_paper(demo: Path, tmp_path: Path) -> None:
    script = "adversarial_refinement/train_recnet.py"
    file = EXAMPLES / "adversarial_refinement" / "configs" / "paper.yaml"
    for options, expected in [
        (["--config", file], (2e-4, "gaussian_1d", None, 1500, None)),
        ([], (2e-3, "random", 64, 50, 1e-3)),
        (["--mask_type", "poisson_2d"], (2e-3, "poisson_2d", None, 50, 1e-3)),
    ]:
        printed = yaml.safe_load(
            run_recipe(script, "--data_path", demo, *options, "--print_config", cwd=tmp_path).stdout
        )
        names = ("lr", "mask_type", "train_rows", "max_epochs", "gradient_clip_val")
        assert tuple(printed[name] for name in names) == expected


def test_a_run_of_an_earlier_version_is_named(demo: Path, tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "modl_ufloss"
    (folder / "checkpoints").mkdir(parents=True)
    settings = {"model": {"chans": 2}, "lr": 1e-4}
    (folder / "settings.json").write_text(json.dumps(settings))
    torch.save(
        {"state_dict": {"modl.a": torch.ones(1)}, "hyper_parameters": settings}, folder / "checkpoints/last.ckpt"
    )
    command = [SCRIPT, "--data_path", demo, *TINY, "--loss", "l2"]
    error = run_recipe(*command, cwd=tmp_path, fails=True).stderr
    assert "modl_ufloss has a checkpoint and no config.yaml" in error
    assert "--resume never or another --default_root_dir" in error
    run_recipe(*command, "--resume", "never", cwd=tmp_path)
    assert (folder / "config.yaml").is_file()


@pytest.mark.parametrize("data", [True, False])
def test_settings_of_the_demo_are_defaults(demo: Path, tmp_path: Path, data: bool) -> None:
    (tmp_path / "some.yaml").write_text("lr: 0.5\nmax_steps: 7\n")
    command = [SCRIPT, "--config", "some.yaml", "--max_steps", 8, *(["--data_path", demo] if data else [])]
    printed = yaml.safe_load(run_recipe(*command, "--print_config", cwd=tmp_path).stdout)
    assert (printed["lr"], printed["max_steps"]) == (0.5, 8)
    assert (printed["train_rows"], printed["max_epochs"]) == ((64, 50) if data else (48, 40))
    assert [path.name for path in tmp_path.iterdir()] == ["some.yaml"]


def test_the_folder_of_another_run_is_left_alone(demo: Path, tmp_path: Path) -> None:
    command = [SCRIPT, "--data_path", demo, *TINY, "--loss", "l2", "--default_root_dir", "run"]
    code = (
        "from pathlib import Path; from fastmri_ufloss.files import lock_folder; lock_folder(Path('run')); input('*')"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", code], cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert other.stdout is not None and other.stdout.read(1) == b"*"
        error = run_recipe(*command, cwd=tmp_path, fails=True).stderr
        assert "error: another process is writing into run" in error
        assert [path.name for path in (tmp_path / "run").iterdir()] == [".lock"]
    finally:
        other.kill()
        other.communicate()
    run_recipe(*command, cwd=tmp_path)
