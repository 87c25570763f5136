"""train_recnet.py and train_refinement.py as a user types them, and what they say to bad input."""

import json
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from helpers import run_process, run_recipe

from fastmri_ufloss.models import PatchFeatureNet
from fastmri_ufloss.pl_modules import JointModule, RecNetModule, RefinementModule, load_reconstruction

FOLDER = "adversarial_refinement"
MASK = ["--mask_type", "gaussian_1d", "--center_fractions", "0.1", "--accelerations", "4"]
QUICK = ["--accelerator", "cpu", "--num_workers", "0", "--limit_train_batches", "2", "--max_epochs", "1"]
COMMON = ["--challenge", "singlecoil", *MASK, *QUICK]
TINY = ["--refinement_chans", "2", "--discriminator_chans", "2", "--num_strided", "3", "--batch_size", "2"]


@pytest.fixture(scope="module")
def recon(demo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of train_recnet.py."""
    folder = tmp_path_factory.mktemp("recnet")
    model = ["--chans", "2", "--num_blocks", "1"]
    run_recipe(f"{FOLDER}/train_recnet.py", "--data_path", demo, *COMMON, *model, cwd=folder)
    return folder / "runs" / "recnet"


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A feature network of complex images, untrained."""
    torch.manual_seed(0)
    file = tmp_path_factory.mktemp("net") / "feature_net.safetensors"
    PatchFeatureNet(2, patch_size=32, num_features=4).save(file)
    return file


def test_recnet(recon: Path) -> None:
    assert isinstance(load_reconstruction(recon / "checkpoints" / "best.ckpt"), RecNetModule)
    methods = {row["method"] for row in json.loads((recon / "scores.json").read_text())["means"]}
    assert methods == {"zero-filled", "CG-SENSE", "RecNet"}
    assert len(list((recon / "reconstructions").glob("*.h5"))) == 2
    assert (recon / "reconstruction.png").is_file()


def test_recnet_of_several_coils(demo: Path, tmp_path: Path) -> None:
    options = ["--data_path", demo, *MASK, *QUICK, "--chans", 2, "--num_blocks", 1, "--no-score"]
    run_recipe(f"{FOLDER}/train_recnet.py", *options, cwd=tmp_path)
    checkpoint = tmp_path / "runs" / "recnet" / "checkpoints" / "last.ckpt"
    assert load_reconstruction(checkpoint).network.data_consistency == "cg"


def test_refinement_from_training_to_files(recon: Path, net: Path, demo: Path, tmp_path: Path) -> None:
    script, checkpoint = f"{FOLDER}/train_refinement.py", recon / "checkpoints" / "best.ckpt"
    options = ["--data_path", demo, *COMMON, *TINY, "--recon", checkpoint, "--feature_net", net, "--stride", 8]
    run_process(script, *options, cwd=tmp_path)
    run = tmp_path / "runs" / "refinement"
    module = RefinementModule.load_from_checkpoint(run / "checkpoints" / "last.ckpt")
    assert module.objective.weights == {
        "adversarial": 0.5, "feature_matching": 0.5, "penalty": 0.1, "perceptual": 1.0,
    }  # fmt: skip
    frozen = load_reconstruction(checkpoint)
    for name, weight in module.reconstruction.network.state_dict().items():
        assert torch.equal(weight, frozen.network.state_dict()[name])
    methods = {row["method"] for row in json.loads((run / "scores.json").read_text())["means"]}
    assert methods == {"zero-filled", "RecNet", "RecNet + refinement"}
    stages = {path.name for path in (run / "stages").iterdir()}
    assert stages == {"zero_filled", "reconstruction", "reference"}
    # the same command with more epochs goes on, --mode test writes the same again, another loss is refused
    more = [*options[: options.index("--max_epochs")], *options[options.index("--max_epochs") + 2 :]]
    assert "Resuming from" in run_recipe(script, *more, "--max_epochs", 2, "--no-score", cwd=tmp_path).stdout
    file = next((run / "reconstructions").glob("*.h5"))
    file.unlink()
    test = [script, "--mode", "test", "--data_path", demo, *COMMON]
    assert "--recon is for --mode train" in run_recipe(*test, "--recon", checkpoint, cwd=tmp_path, fails=True).stderr
    run_recipe(*test, cwd=tmp_path)
    with h5py.File(file) as volume:
        assert np.isfinite(volume["reconstruction"][()]).all()
    error = run_recipe(script, *options, "--weights", "penalty=1", cwd=tmp_path, fails=True).stderr
    assert "was trained with weights=None, not ['penalty=1']" in error


def test_joint_training_with_the_weights_of_dagan(recon: Path, demo: Path, tmp_path: Path) -> None:
    options = ["--data_path", demo, *COMMON, *TINY[2:], "--perceptual", "none", "--joint", "--preset", "dagan"]
    checkpoint = recon / "checkpoints" / "best.ckpt"
    run_recipe(f"{FOLDER}/train_refinement.py", *options, "--recon", checkpoint, "--weights", "nmse=10", cwd=tmp_path)
    module = JointModule.load_from_checkpoint(tmp_path / "runs" / "joint" / "checkpoints" / "last.ckpt")
    assert module.objective.weights == {"nmse": 10.0, "frequency": 0.1, "adversarial": 1.0}
    assert not module.objective.normalize
    assert len(module.reconstruction.network.blocks) == 1  # the architecture of --recon


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "--recon must name a checkpoint of the network to refine"),
        (["--recon", "missing.ckpt"], "no checkpoint missing.ckpt"),
        (["--joint", "--refinement_chans", "4"], "--refinement_chans is of the refinement network"),
        (["--preset", "dagan"], "--preset is for --joint"),
        (["--gradient_clip_val", "1"], "--gradient_clip_val is not for two optimizers"),
        (["--vgg_weights", "file"], "--vgg_weights is for --perceptual vgg19, got ufloss"),
        (["--perceptual", "none", "--stride", "3"], "--stride is for --perceptual ufloss, got none"),
        (["--checkpoint", "a.ckpt"], "--checkpoint is for --mode test"),
        (["--weights", "sharpness=1"], "unknown name 'sharpness'"),
        (
            ["--weights", "penalty=much"],
            "the weight of 'penalty' must be a number, FROM:TO@EPOCH-EPOCH or auto, got 'much'",
        ),
        (["--weights", "l2=1"], "--weights: l2 is for --joint"),
        (["--perceptual", "none", "--weights", "perceptual=1"], "perceptual is for a term that --perceptual none"),
        (["--joint", "--weights", "penalty=1"], "penalty is of the refinement network, which --joint has not"),
    ],
)
def test_bad_flags(options: list[str], message: str, demo: Path, tmp_path: Path) -> None:
    script = f"{FOLDER}/train_refinement.py"
    error = run_recipe(script, "--data_path", demo, *COMMON, *options, cwd=tmp_path, fails=True).stderr
    assert message in error
    assert not (tmp_path / "runs").exists()


def test_bad_input_that_the_checkpoint_shows(
    recon: Path, net: Path, demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = f"{FOLDER}/train_refinement.py"
    options = ["--data_path", demo, *COMMON, "--recon", recon / "checkpoints" / "best.ckpt"]

    def error(*more: object) -> str:
        return run_recipe(script, *options, *more, cwd=tmp_path, fails=True).stderr

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    assert "or take --perceptual ufloss, which needs no download" in error("--perceptual", "vgg19")
    few = error("--perceptual", "none", "--discriminator_chans", 2, "--refinement_chans", 2)
    assert "must have at least 128x128 pixels" in few and "lower num_strided" in few
    torch.save({"state_dict": {"feature_net.a": torch.ones(1)}}, tmp_path / "other.ckpt")
    options[-1] = tmp_path / "other.ckpt"
    assert "must be a checkpoint of one of recnet, modl, varnet, unet" in error()
