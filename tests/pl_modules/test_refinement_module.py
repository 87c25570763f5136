"""Refinement and joint training under Lightning: what stays, what moves, processes, files, bad input."""

import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from helpers import replace_batch_norm, simulate_volume
from pytorch_lightning.callbacks import ModelCheckpoint
from torch import Tensor, nn

from fastmri_ufloss.data import MoDLDataTransform, UnetDataTransform, UnitSensMaps, create_mask_for_mask_type
from fastmri_ufloss.losses import L2Loss, UFLoss
from fastmri_ufloss.models import PatchFeatureNet
from fastmri_ufloss.pl_modules import (
    JointModule,
    MoDLModule,
    MriDataModule,
    RecNetModule,
    RefinementModule,
    SeededSteps,
    UnetModule,
    VarNetModule,
    load_reconstruction,
)
from fastmri_ufloss.pl_modules.adversarial_module import AdversarialModule
from fastmri_ufloss.pl_modules.refinement_module import JOINT_PRESETS

DISCRIMINATOR = {"discriminator_chans": 2, "num_strided": 2}
SMALL = {**DISCRIMINATOR, "refinement_chans": 2}
NETWORKS: dict[str, pl.LightningModule] = {
    "recnet": RecNetModule(num_blocks=1, chans=4),
    "modl": MoDLModule(num_unrolls=1, num_cg_iterations=2, chans=2, num_pools=1),
    "varnet": VarNetModule(num_cascades=1, pools=1, chans=2, sens_pools=1, sens_chans=2),
    "unet": UnetModule(chans=2, num_pool_layers=1),
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    y, x = np.mgrid[-1:1:32j, -1:1:36j]
    for split, names in {"train": "abc", "val": "d", "test": "ef"}.items():
        for number, name in enumerate(names):
            images = 1e-4 * (x**2 + y**2 < 0.7) * (1 + 0.5 * rng.random((2, 32, 36)))
            for challenge, coils in (("singlecoil", None), ("multicoil", 3)):
                path = root / f"{challenge}_{split}" / f"{name}.h5"
                simulate_volume(path, images, num_coils=coils, seed=number, recon_size=(32, 32))
    return root


def checkpoint_of(name: str, folder: Path) -> Path:
    """A checkpoint of an untrained network."""
    path = folder / f"{name}.ckpt"
    trainer = pl.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, barebones=True)
    trainer.strategy.connect(NETWORKS[name])
    trainer.save_checkpoint(path)
    return path


@pytest.fixture(scope="module")
def recon(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoint_of("recnet", tmp_path_factory.mktemp("recon"))


def data_module(root: Path, network: str = "recnet", *, batch_size: int = 2) -> MriDataModule:
    mask_func = create_mask_for_mask_type("random", [0.25], [3])
    challenge = "multicoil" if network in ("modl", "varnet") else "singlecoil"
    source = UnitSensMaps() if network == "recnet" else None

    def transform(use_seed: bool) -> Any:
        if network == "unet":
            return UnetDataTransform(challenge, mask_func, use_seed=use_seed)
        keep = network != "varnet"
        return MoDLDataTransform(mask_func, use_seed=use_seed, sens_maps=source, keep_reference=keep)

    return MriDataModule(
        root,
        challenge,
        *(transform(use_seed) for use_seed in (False, True, True)),
        cache_dir=root / "cache",
        mask_func=mask_func,
        batch_size=batch_size,
        num_workers=0,
    )


def first_batch(root: Path, network: str = "recnet", **options: Any) -> Any:
    data = data_module(root, network, **options)
    data.trainer = None
    data.build_index("train")
    return next(iter(data.train_dataloader()))


def feature_net() -> PatchFeatureNet:
    torch.manual_seed(3)
    return PatchFeatureNet(2, patch_size=32, num_features=4).eval()


def module_for(recon: Path, **options: Any) -> RefinementModule:
    reconstruction = load_reconstruction(recon)
    torch.manual_seed(0)
    return RefinementModule(reconstruction, **{**SMALL, "replay_size": 3, "lr": 1e-2, **options})


def trainer_in(folder: Path, **options: Any) -> pl.Trainer:
    settings: dict[str, Any] = {
        "accelerator": "cpu",
        "default_root_dir": folder,
        "logger": False,
        "callbacks": [SeededSteps(0), ModelCheckpoint(folder, filename="last", every_n_train_steps=2)],
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "use_distributed_sampler": False,
        "num_sanity_val_steps": 0,
        "max_epochs": 2,
    }
    return pl.Trainer(**{**settings, **options})


def weights_of(module: nn.Module) -> Tensor:
    return torch.cat([parameter.detach().flatten().clone() for parameter in module.parameters()])


@pytest.mark.parametrize("name", NETWORKS)
def test_with_a_gate_of_zero_it_is_the_frozen_network(name: str, root: Path, tmp_path: Path) -> None:
    module = module_for(checkpoint_of(name, tmp_path))
    batch = first_batch(root, name)
    image, base, _ = module.generate(batch)
    assert torch.equal(image, base.image)
    assert image.is_complex() == (name in ("recnet", "modl"))
    assert base.reference.shape == image.shape == base.zero_filled.shape
    # it is what the network's own module gives
    own = NETWORKS[name].eval()
    with torch.no_grad():
        if name == "unet":
            expected = own(batch.image) * batch.std[:, None, None] + batch.mean[:, None, None]
        elif name == "varnet":
            expected = own(batch.masked_kspace, batch.mask, batch.num_low_frequencies)[
                :, :, 2:-2
            ]  # cropped to the target
        else:
            expected = own.reconstruct(batch).image[:, 0]
    torch.testing.assert_close(image[:, 0], expected.to(image), rtol=1e-5, atol=1e-9)
    # at a gate of zero V gets no gradient at all, the gate gets one
    module.refinement.train()
    image, *_ = module.generate(batch)
    (image.abs() / image.detach().abs().amax() - 0.5).square().mean().backward()
    assert all(not p.grad.any() for p in module.refinement.unet.parameters() if p.grad is not None)
    assert module.refinement.gate.grad.abs() > 0


def test_magnitudes_of_a_complex_network(root: Path, recon: Path) -> None:
    batch = first_batch(root)
    whole, magnitude = (module_for(recon, images=kind).reconstruct(batch) for kind in (None, "magnitude"))
    torch.testing.assert_close(magnitude.image, whole.image.abs())
    torch.testing.assert_close(magnitude.reference, whole.reference.abs())


def test_training_moves_the_gate_and_nothing_of_the_frozen_network(root: Path, recon: Path, tmp_path: Path) -> None:
    module = module_for(recon, image_losses={"perceptual": UFLoss(feature_net(), stride=2)})
    before = {name: value.clone() for name, value in module.state_dict().items()}
    trainer = trainer_in(tmp_path)
    trainer.fit(module, datamodule=data_module(root))
    after = module.state_dict()
    moved = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert moved == {"refinement", "discriminator", "objective"}
    assert module.refinement.gate != 0
    assert not module.reconstruction.training and module.refinement.training
    in_optimizers = {id(p) for o in trainer.optimizers for group in o.param_groups for p in group["params"]}
    assert not in_optimizers & {id(p) for p in module.reconstruction.parameters()}
    assert len(module.replay.images) == 3
    assert math.isfinite(trainer.callback_metrics["validation_loss"])
    assert 0 <= trainer.callback_metrics["discriminator/accuracy"] <= 1
    # all that stage 1 was goes into the checkpoint, which needs no other file
    again = RefinementModule.load_from_checkpoint(tmp_path / "last.ckpt")
    batch = first_batch(root)
    torch.testing.assert_close(again.eval()(batch), module.eval()(batch))


class FirstLoss(pl.Callback):
    def __init__(self) -> None:
        self.values: list[float] = []

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        self.values.append(float(trainer.callback_metrics["train_loss"]))


def test_each_term_is_one_in_the_first_step(root: Path, recon: Path, tmp_path: Path) -> None:
    module = module_for(recon, image_losses={"perceptual": UFLoss(feature_net(), stride=2)})
    first = FirstLoss()
    trainer_in(tmp_path, callbacks=[first], max_epochs=1, limit_val_batches=0).fit(
        module, datamodule=data_module(root)
    )
    # (1 + 1) / 2 + 1 + 0.1
    assert first.values[0] == pytest.approx(2.1, rel=1e-5)
    assert first.values[1] != pytest.approx(2.1, rel=1e-5)


def test_accumulated_batches_are_one_large_batch(root: Path, recon: Path, tmp_path: Path) -> None:
    def run(folder: Path, **options: Any) -> Tensor:
        batch_size = options.pop("batch_size")
        module = module_for(recon, **{"dropout": 0.0, "replay_size": 0, "normalize": False, **options})
        module.refinement.gate.data.fill_(0.5)
        replace_batch_norm(module)
        trainer = trainer_in(folder, limit_val_batches=0, max_epochs=2, precision="64-true")
        trainer.fit(module, datamodule=data_module(root, batch_size=batch_size))
        return weights_of(module)

    large = run(tmp_path / "large", batch_size=6)
    torch.testing.assert_close(run(tmp_path / "small", batch_size=1, accumulate_grad_batches=6), large)
    assert not torch.allclose(run(tmp_path / "other", batch_size=1), large)


@pytest.mark.parametrize(
    "settings",
    [{"replay_size": 0}, {"replay_probability": 0.0}, {"label_smoothing": 0.0}, {"beta1": 0.9}, {"seed": 5}],
)
def test_each_setting_changes_the_training(settings: dict[str, Any], root: Path, recon: Path, tmp_path: Path) -> None:
    runs = []
    for options in ({}, {}, settings):
        module = module_for(recon, **{"replay_size": 2, "replay_probability": 1.0, **options})
        trainer_in(tmp_path, callbacks=[SeededSteps(0)], enable_checkpointing=False, limit_val_batches=0).fit(
            module, datamodule=data_module(root)
        )
        runs.append(weights_of(module))
    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], runs[2])


def test_bf16_and_data_consistency(root: Path, recon: Path, tmp_path: Path) -> None:
    module = module_for(recon, data_consistency=True)
    trainer_in(tmp_path, precision="bf16-mixed").fit(module, datamodule=data_module(root))
    assert weights_of(module).isfinite().all() and module.refinement.gate != 0
    module.refinement.gate.data.fill_(0.5)
    batch = first_batch(root)
    image = module.eval()(batch)
    kspace = torch.fft.fftshift(torch.fft.fft2(torch.fft.ifftshift(image, dim=(-2, -1)), norm="ortho"), dim=(-2, -1))
    measured = torch.view_as_complex(batch.masked_kspace)
    mask = batch.mask[..., 0].expand_as(measured)
    torch.testing.assert_close(kspace[mask], measured[mask], atol=1e-8, rtol=1e-4)


@pytest.mark.parametrize("part", ["refinement", "discriminator"])
def test_a_nan_stops_before_the_step(part: str, root: Path, recon: Path, tmp_path: Path) -> None:
    class Break(pl.Callback):
        def on_train_batch_start(
            self, trainer: pl.Trainer, module: pl.LightningModule, _: Any, batch_idx: int
        ) -> None:
            if trainer.current_epoch == 1 and batch_idx == 1:
                next(getattr(module, part).parameters()).data.fill_(math.nan)

    module = module_for(recon)
    callbacks = [Break(), ModelCheckpoint(tmp_path, filename="last", every_n_epochs=1)]
    with pytest.raises(ValueError, match=r"generator.* became not finite in epoch 1, step 4 on .*\.h5, slice"):
        trainer_in(tmp_path, callbacks=callbacks, limit_val_batches=0).fit(module, datamodule=data_module(root))
    assert all(image.isfinite().all() for image in module.replay.images)
    assert weights_of(RefinementModule.load_from_checkpoint(tmp_path / "last.ckpt")).isfinite().all()


@pytest.mark.parametrize("name", ["recnet", "varnet", "unet"])
def test_test_writes_leaderboard_files_and_stages(name: str, root: Path, tmp_path: Path) -> None:
    module = module_for(checkpoint_of(name, tmp_path))
    trainer_in(tmp_path).test(module, datamodule=data_module(root, name), verbose=False)
    folders = ["reconstructions", *(f"stages/{stage}" for stage in ("zero_filled", "reconstruction", "reference"))]
    images = {}
    for folder in folders:
        with h5py.File(tmp_path / folder / "e.h5") as file:
            images[folder] = file["reconstruction"][()]
        assert images[folder].shape == (2, 32, 32)
        assert (tmp_path / folder / "f.h5").is_file()
    np.testing.assert_array_equal(images["reconstructions"], images["stages/reconstruction"])  # the gate is 0
    challenge = "multicoil" if name == "varnet" else "singlecoil"
    with h5py.File(root / f"{challenge}_test" / "e.h5") as file:
        target = file["reconstruction_rss" if name == "varnet" else "reconstruction_esc"][()]
    np.testing.assert_allclose(images["stages/reference"], target, rtol=1e-3, atol=1e-3 * target.max())


@pytest.mark.parametrize("preset", JOINT_PRESETS)
def test_joint_training_trains_the_network_itself(preset: str, root: Path, recon: Path, tmp_path: Path) -> None:
    losses = {"l2": L2Loss()} if preset == "equal" else {"nmse": L2Loss(), "frequency": L2Loss()}
    weights = {n: w for n, w in JOINT_PRESETS[preset]["weights"].items() if n != "perceptual"}
    torch.manual_seed(0)
    module = JointModule(
        load_reconstruction(recon),
        image_losses=losses,
        weights=weights,
        normalize=JOINT_PRESETS[preset]["normalize"],
        lr=1e-2,
        **DISCRIMINATOR,
    )
    before = weights_of(module.reconstruction)
    trainer_in(tmp_path).fit(module, datamodule=data_module(root))
    assert not torch.equal(weights_of(module.reconstruction), before)
    again = JointModule.load_from_checkpoint(tmp_path / "last.ckpt")
    assert torch.equal(weights_of(again), weights_of(module))
    assert type(again.objective.weights) is dict and again.objective.weights == weights


def test_a_refinement_is_no_joint_training(recon: Path, tmp_path: Path) -> None:
    trainer = trainer_in(tmp_path)
    trainer.strategy.connect(module_for(recon))
    trainer.save_checkpoint(tmp_path / "refinement.ckpt")
    with pytest.raises(ValueError, match="another model: a refinement, not joint training"):
        JointModule.load_from_checkpoint(tmp_path / "refinement.ckpt")
    with pytest.raises(ValueError, match="does not fit its own settings"):
        RefinementModule.load_from_checkpoint(tmp_path / "refinement.ckpt", refinement_chans=3)
    assert RefinementModule.load_from_checkpoint(tmp_path / "refinement.ckpt").refinement.gate == 0


def test_the_discriminator_never_sees_parameters_without_gradients_enabled(
    root: Path, recon: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # casts of such parameters are kept by autocast in some versions of torch, and then have no gradient
    module, seen = module_for(recon), []
    forward = module.discriminator.forward

    def watch(*args: Any, **kwargs: Any) -> Any:
        with_gradient = {parameter.requires_grad for parameter in module.discriminator.parameters()}
        seen.append((torch.is_grad_enabled(), with_gradient))
        return forward(*args, **kwargs)

    monkeypatch.setattr(module.discriminator, "forward", watch)
    trainer_in(tmp_path, max_steps=2, limit_val_batches=0).fit(module, datamodule=data_module(root))
    # as constants with and without gradients, and twice in its own step
    assert sorted(seen, key=str) == [(False, {False}), (True, {False}), (True, {True}), (True, {True})]


@pytest.mark.parametrize("kind", ["varnet", "unet", "modl"])
def test_other_networks_are_refined(kind: str, root: Path, tmp_path: Path) -> None:
    module: AdversarialModule = module_for(checkpoint_of(kind, tmp_path))
    trainer_in(tmp_path, max_epochs=1).fit(module, datamodule=data_module(root, kind))
    assert weights_of(module).isfinite().all() and module.refinement.gate != 0


def test_bad_checkpoints_and_images(root: Path, recon: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FileNotFoundError, match="no checkpoint"):
        load_reconstruction(tmp_path / "missing.ckpt")
    torch.save({"state_dict": {"feature_net.a": torch.ones(1)}}, tmp_path / "other.ckpt")
    with pytest.raises(
        ValueError, match=r"must be a checkpoint of one of recnet, modl, varnet, unet, got .*feature_net"
    ):
        load_reconstruction(tmp_path / "other.ckpt")
    with pytest.raises(ValueError, match="must be 'magnitude' for U-Net"):
        module_for(checkpoint_of("unet", tmp_path), images="complex")
    with pytest.raises(ValueError, match="checkpoint of another model"):
        RefinementModule.load_from_checkpoint(recon)
    module = module_for(recon, num_strided=4)
    with pytest.raises(ValueError, match="at least 64x64 pixels"):
        trainer_in(tmp_path).fit(module, datamodule=data_module(root))
    with pytest.raises(ValueError, match=r"image_losses must be those of the weights, \['perceptual'\]"):
        weights = {**RefinementModule.default_weights([]), "perceptual": 1.0}
        trainer_in(tmp_path).fit(module_for(recon, weights=weights), datamodule=data_module(root))
    with monkeypatch.context() as patch:  # a CPU has none
        patch.setattr(pl.Trainer, "precision", "16-mixed")
        with pytest.raises(ValueError, match="precision must be 'bf16-mixed' or '32-true', got '16-mixed'"):
            trainer_in(tmp_path).fit(module_for(recon), datamodule=data_module(root))
    with pytest.raises(ValueError, match="accumulate_grad_batches must be at least 1"):
        module_for(recon, accumulate_grad_batches=0)
    with pytest.warns(UserWarning, match="batch_size is 1"):
        trainer_in(tmp_path, max_steps=2).fit(module_for(recon), datamodule=data_module(root, batch_size=1))


SCRIPT = """
import sys
from pathlib import Path
sys.path[:0] = [{tests!r}, {tests!r} + "/pl_modules"]
import torch
torch.set_num_threads(1)
from test_refinement_module import *
devices = int(sys.argv[1])
folder = Path(sys.argv[2])
losses = {{"perceptual": UFLoss(feature_net(), stride=2, patches_per_step=2)}}
module = module_for(Path({recon!r}), image_losses=losses, seed=4)
replace_batch_norm(module)
module.refinement.gate.data.fill_(0.3)
options = dict(devices=2, strategy="ddp") if devices == 2 else {{}}
run = trainer_in(folder, precision="64-true", limit_val_batches=0, **options)
run.fit(module, datamodule=data_module(Path({root!r}), batch_size=2 // devices))
if run.is_global_zero:
    state = {{"weights": weights_of(module), "replay": torch.stack(module.replay.images)}}
    torch.save({{**state, "factors": torch.stack(list(module.objective.buffers()))}}, folder / "state.pt")
"""


def test_two_processes_give_what_one_gives(root: Path, recon: Path, tmp_path: Path) -> None:
    script = tmp_path / "run.py"
    tests = str(Path(__file__).resolve().parents[1])
    script.write_text(SCRIPT.format(tests=tests, root=str(root), recon=str(recon)))
    states = []
    for devices in (1, 2):
        folder = tmp_path / str(devices)
        folder.mkdir()
        command = [sys.executable, str(script), str(devices), str(folder)]
        result = subprocess.run(command, capture_output=True, timeout=300, text=True)
        assert result.returncode == 0, result.stderr[-3000:]
        states.append(torch.load(folder / "state.pt", weights_only=True))
    assert states[0]["weights"].dtype == torch.float64
    for name in ("weights", "replay", "factors"):
        torch.testing.assert_close(states[1][name], states[0][name], rtol=1e-7, atol=1e-9)
