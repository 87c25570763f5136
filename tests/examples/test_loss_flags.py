"""``--loss`` and what belongs to it: one grammar for all training recipes."""

import sys
from pathlib import Path

import h5py
import pytest
import torch
from helpers import EXAMPLES, run_process, run_recipe
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from fastmri_ufloss.losses import LOSS_NAMES, LinearRamp
from fastmri_ufloss.models import PatchFeatureNet

sys.path.insert(0, str(EXAMPLES))
import recipe

RECIPES = ("modl_ufloss", "varnet", "unet")
QUICK = ["--accelerator", "cpu", "--num_workers", "0", "--max_epochs", "1", "--limit_train_batches", "2"]
MASK = ["--center_fractions", "0.2", "--accelerations", "3"]
UNET = ["--chans", "2", "--num_pool_layers", "1"]
VARNET = ["--num_cascades", 1, "--chans", 2, "--pools", 1, "--sens_chans", 2, "--sens_pools", 1]
NET = ["--patch_size", 40]


def scalars(folder: Path) -> dict[str, list[float]]:
    """All that TensorBoard has of a run's first version."""
    events = EventAccumulator(str(folder / "tensorboard" / "version_0"), size_guidance={"scalars": 0}).Reload()
    return {name: [event.value for event in events.Scalars(name)] for name in events.Tags()["scalars"]}


def test_grammar() -> None:
    weights = recipe.read_weights("--loss", ["l2", "ssim=0.2", "ufloss=0:1.5@5-20"], names=LOSS_NAMES)
    assert weights == {"l2": 1.0, "ssim": 0.2, "ufloss": LinearRamp(0.0, 1.5, 5, 20)}
    with pytest.raises(ValueError, match=r"^--loss: unknown name 'vgg' in 'vgg=1', known are l1, l2, nmse, ssim"):
        recipe.read_weights("--loss", ["vgg=1"], names=LOSS_NAMES)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--loss", "l1", "--vgg", "vgg19"], "--vgg is for the loss perceptual"),
        (["--loss", "l1", "--ms_ssim_scales", "3"], "--ms_ssim_scales is for the loss ms_ssim"),
        (["--normalize_losses"], "are for terms that --loss names"),
        (["--grad_norms_every", "5"], "are for terms that --loss names"),
    ],
)
def test_a_flag_without_its_loss_is_named(flags: list[str], message: str) -> None:
    parser = recipe.make_parser(None)
    recipe.add_loss_args(parser, default=None)
    with pytest.raises(ValueError, match=message):
        recipe.read_loss(parser, parser.parse_args(flags))


def test_unet_with_every_loss_from_training_to_test(demo: Path, tmp_path: Path) -> None:
    common = ["unet/train.py", "--challenge", "singlecoil", "--data_path", demo, *QUICK, *MASK]
    loss = ["l1=1", "l2=0.1", "nmse=0.1", "ssim=0:0.5@0-2", "dssim=0.1", "ms_ssim=0.1", "edge=0.1", "hfen=0.1"]
    loss += ["perceptual=0.1", "ufloss=0.1"]
    options = ["--vgg_weights", "random", "--ms_ssim_scales", 3, "--normalize_losses", "--grad_norms_every", 2]
    options += ["--metrics", "nrmse", "dssim", "ufloss", "--log_every_n_steps", 1, *NET]
    run_recipe(*common, *UNET, "--loss", *loss, *options, cwd=tmp_path)
    folder = tmp_path / "runs" / "unet"
    logged = scalars(folder)
    names = [item.partition("=")[0] for item in loss]
    assert {f"train_terms/{name}" for name in names} | {f"val_terms/{name}" for name in names} <= set(logged)
    assert {"val_metrics/nrmse", "val_metrics/dssim", "val_metrics/ufloss", "train_weights/ssim"} <= set(logged)
    first, second = logged["train_terms/l1"]
    assert first != second
    first, second = logged["train_grad_norms/l1"]
    assert first == second > 0  # measured in every other step, and kept until then
    stored = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    factor = stored["state_dict"]["loss.factor_of_l1"]
    assert float(factor) * logged["train_terms/l1"][0] == pytest.approx(1, rel=1e-4)  # of the first batch
    # it goes on, with the network it has
    output = run_recipe(*common, *UNET, "--loss", *loss, *options, "--max_epochs", 2, cwd=tmp_path).stdout
    assert "Resuming from" in output and "training the feature network" not in output
    again = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    assert again["global_step"] == 4 and torch.equal(again["state_dict"]["loss.factor_of_l1"], factor)
    run_recipe(*common, "--mode", "test", cwd=tmp_path)
    with h5py.File(folder / "reconstructions" / "file1002001.h5") as file:
        assert file["reconstruction"].shape == (2, 48, 48)


def test_modl_with_losses_of_complex_images(demo: Path, tmp_path: Path) -> None:
    loss = ["l1=1", "nmse=0.1", "ssim=0.1", "dssim=0.1", "ms_ssim=0.1", "edge=0.1", "hfen=0.1", "perceptual=0.1"]
    model = ["--chans", 2, "--num_layers", 2, "--num_unrolls", 1, "--no-score"]
    options = ["--vgg_weights", "random", "--ms_ssim_scales", 2, "--metrics", "hfen", "relative_error"]
    run_recipe(
        "modl_ufloss/train.py", "--data_path", demo, *QUICK, *MASK, *model, "--loss", *loss, *options, cwd=tmp_path
    )
    logged = scalars(tmp_path / "runs" / "modl_ufloss")
    assert all(0 < logged[f"val_terms/{item.partition('=')[0]}"][-1] < 10 for item in loss)
    assert 0 < logged["val_metrics/relative_error"][-1] < 2 and 0 < logged["val_metrics/hfen"][-1] < 2


def test_varnet_is_trained_on_with_ufloss(demo: Path, tmp_path: Path) -> None:
    common = ["varnet/train.py", "--data_path", demo, *QUICK, *MASK, *VARNET]
    run_process(*common, "--default_root_dir", "ssim", cwd=tmp_path)
    start = torch.load(tmp_path / "ssim" / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    loss = ["--loss", "ssim=1", "ufloss=auto", "--stride", 8]
    # no step is large enough to change a weight: what it begins with can be read from what it ends with
    tuned = [
        *loss,
        *NET,
        "--init_checkpoint",
        "ssim/checkpoints/last.ckpt",
        "--default_root_dir",
        "tuned",
        "--lr",
        1e-30,
    ]
    run_recipe(*common, *tuned, "--max_epochs", 2, cwd=tmp_path)
    last = torch.load(tmp_path / "tuned" / "checkpoints" / "last.ckpt", weights_only=True)
    assert last["global_step"] == 4  # each epoch leaves a checkpoint to go on from, also one that is no better
    end = last["state_dict"]
    weights = [name for name in start if name.startswith("varnet.")]
    assert weights and all(torch.equal(start[name], end[name]) for name in weights)
    error = run_recipe(
        *common, "--init_checkpoint", "nowhere.ckpt", "--resume", "never", cwd=tmp_path, fails=True
    ).stderr
    assert "no checkpoint nowhere.ckpt" in error
    # a run does not go on with another loss or another beginning
    error = run_recipe(*common, "--loss", "l1", "--default_root_dir", "ssim", cwd=tmp_path, fails=True).stderr
    assert "ssim was trained with loss=None, not ['l1']" in error and "--default_root_dir" in error
    begun = ["--init_checkpoint", "ssim/checkpoints/last.ckpt", "--default_root_dir", "ssim"]
    assert "init_checkpoint=None, not ssim" in run_recipe(*common, *begun, cwd=tmp_path, fails=True).stderr
    # weights alone, as fastMRI publishes them
    network = {name.removeprefix("varnet."): start[name] for name in weights}
    torch.save(network, tmp_path / "leaderboard_state_dict.pt")
    options = ["--init_checkpoint", "leaderboard_state_dict.pt", "--default_root_dir", "published", "--lr", 1e-30]
    run_recipe(*common, *options, cwd=tmp_path)
    end = torch.load(tmp_path / "published" / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    assert all(torch.equal(start[name], end[name]) for name in weights)


@pytest.mark.parametrize("recipe", RECIPES)
def test_what_a_loss_lacks_is_named(demo: Path, tmp_path: Path, recipe: str) -> None:
    common = [f"{recipe}/train.py", "--data_path", demo, *QUICK, *MASK]
    home = {"TORCH_HOME": str(tmp_path / "torch")}
    error = run_recipe(*common, "--loss", "l1", "perceptual=1", cwd=tmp_path, fails=True, environment=home).stderr
    assert "vgg16-397923af.pth" in error and "--vgg_weights" in error
    assert str(tmp_path / "torch" / "hub" / "checkpoints") in error
    error = run_recipe(*common, "--loss", "l1", "vgg=1", cwd=tmp_path, fails=True).stderr
    assert "--loss: unknown name 'vgg'" in error


def test_images_that_do_not_suit_a_loss_are_named(demo: Path, tmp_path: Path) -> None:
    common = ["unet/train.py", "--data_path", demo, *QUICK, *MASK, *UNET]
    error = run_recipe(*common, "--loss", "ms_ssim", cwd=tmp_path, fails=True).stderr
    assert "num_scales" in error
    PatchFeatureNet(2, patch_size=32, num_features=8).save(tmp_path / "net.safetensors")
    error = run_recipe(
        *common, "--loss", "ufloss", "--feature_net", "net.safetensors", cwd=tmp_path, fails=True
    ).stderr
    assert "pretrain.py --images rss" in error
    for options, message in (
        (["--loss", "l1", "--stride", 8], "--stride is for the loss ufloss, which --loss does not name"),
        (["--loss", "l1", "--feature_net", "net.safetensors"], "--feature_net is for ufloss"),
        (["--loss", "l1", "--patch_size", 40], "--patch_size is for ufloss"),
        (["--loss", "ufloss", "--feature_net", "generl"], "be one of general-complex, general-magnitude"),
        (["--loss", "ufloss", "--patch_size", 38], "patch_size must be at least 39, got 38"),
        (["--loss", "ufloss", "--feature_net", "net.safetensors", "--patch_size", 40], "net.safetensors has its own"),
        (["--loss", "ufloss=auto"], "must have a term with a fixed weight beside"),
        (["--loss", "l1", "--checkpoint", "a.ckpt"], "--checkpoint is for --mode test"),
    ):
        assert message in run_recipe(*common, *options, cwd=tmp_path, fails=True).stderr
    error = run_recipe(
        *common, "--metrics", "ufloss", "--loss", "l1", "--patch_size", 64, cwd=tmp_path, fails=True
    ).stderr
    assert "64" in error
    error = run_recipe(
        "varnet/train.py", "--challenge", "singlecoil", "--data_path", demo, cwd=tmp_path, fails=True
    ).stderr
    assert "unet/train.py takes both" in error
    error = run_recipe(*common, "--sens_maps_path", "maps", cwd=tmp_path, fails=True).stderr
    assert "--sens_maps_path is for MoDL" in error
