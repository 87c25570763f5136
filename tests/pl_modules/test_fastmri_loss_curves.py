"""The defaults repeat fastMRI's own runs: VarNet with SSIM and U-Net with L1, step by step."""

from pathlib import Path
from typing import Any

import fastmri.pl_modules
import numpy as np
import pytest
import pytorch_lightning as pl
import torch

from fastmri_ufloss.data import MoDLDataTransform, UnetDataTransform, create_mask_for_mask_type
from fastmri_ufloss.pl_modules import MriDataModule, UnetModule, VarNetModule
from fastmri_ufloss.simulation.simulate import simulate_kspace, write_volume

STEPS = 5
MASK = create_mask_for_mask_type("random", [0.3], [2])
VARNET = {"num_cascades": 2, "pools": 2, "chans": 4, "sens_pools": 2, "sens_chans": 2}
UNET = {"chans": 8, "num_pool_layers": 2}
Run = tuple[list[float], dict[str, torch.Tensor]]  # the losses of the steps, and the final weights


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    y, x = np.mgrid[-1:1:40j, -1:1:44j]
    images = (x**2 + y**2 < 0.7) * (1 + 0.3 * rng.random((11, 40, 44)))
    for split, slices in (("train", slice(0, 10)), ("val", slice(10, 11))):
        kspace = 1e-4 * simulate_kspace(images[slices], num_coils=3, seed=1)
        write_volume(folder / f"multicoil_{split}" / "a.h5", kspace, recon_size=(36, 40))
    return folder


def data_module(folder: Path, kind: str) -> MriDataModule:
    transforms = [
        MoDLDataTransform(MASK, use_seed=use_seed)
        if kind == "varnet"
        else UnetDataTransform("multicoil", MASK, use_seed=use_seed)
        for use_seed in (False, True, True)
    ]
    # fastMRI's VarNet takes no batch of more than one slice from a loader
    batch_size = 1 if kind == "varnet" else 2
    return MriDataModule(
        folder, "multicoil", *transforms, cache_dir=folder, mask_func=MASK, batch_size=batch_size, num_workers=0
    )


class Losses(pl.Callback):
    """Keeps the loss of each step."""

    def __init__(self) -> None:
        self.values: list[float] = []

    def on_train_batch_end(self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, *_: Any) -> None:
        self.values.append(float(outputs["loss"]))


def our_run(module: pl.LightningModule, data: MriDataModule, path: Path) -> Run:
    """A run of Lightning's trainer."""
    losses = Losses()
    trainer = pl.Trainer(
        accelerator="cpu",
        default_root_dir=path,
        logger=False,
        enable_progress_bar=False,
        enable_checkpointing=False,
        callbacks=[losses],
        max_steps=STEPS,
        limit_val_batches=0,
        use_distributed_sampler=False,
    )
    trainer.fit(module, datamodule=data)
    return losses.values, module.state_dict()


def fastmri_run(module: pl.LightningModule, data: MriDataModule) -> Run:
    """A run of fastMRI's own code, which has no trainer on Lightning 2: steps and optimizer by hand."""
    module.log = lambda *args, **kwargs: None
    (optimizer,), _ = module.configure_optimizers()
    losses = []
    for number, batch in zip(range(STEPS), data.train_dataloader(), strict=False):
        optimizer.zero_grad()
        loss = module.training_step(batch, number)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses, module.state_dict()


def seeded(kind: str, module_class: type, **options: Any) -> pl.LightningModule:
    torch.manual_seed(0)
    return module_class(**(VARNET if kind == "varnet" else UNET), **options)


@pytest.mark.parametrize("kind", ["varnet", "unet"])
def test_defaults_repeat_fastmris_loss_curve(folder: Path, tmp_path: Path, kind: str) -> None:
    ours, theirs = {
        "varnet": (VarNetModule, fastmri.pl_modules.VarNetModule),
        "unet": (UnetModule, fastmri.pl_modules.UnetModule),
    }[kind]
    losses, weights = our_run(seeded(kind, ours), data_module(folder, kind), tmp_path)
    expected, expected_weights = fastmri_run(seeded(kind, theirs), data_module(folder, kind))
    assert len(losses) == STEPS and len(set(losses)) == STEPS
    np.testing.assert_allclose(losses, expected, rtol=1e-6)
    assert list(weights) == list(expected_weights)
    for name, weight in expected_weights.items():
        torch.testing.assert_close(weights[name], weight, rtol=1e-6, atol=1e-8, msg=name)
    # the comparison sees what it should: a tenth of a percent of the learning rate changes the curve
    lr = seeded(kind, ours).lr
    others, other_weights = our_run(seeded(kind, ours, lr=1.001 * lr), data_module(folder, kind), tmp_path)
    assert others[0] == losses[0]
    assert not np.allclose(others, expected, rtol=1e-6)
    assert any(not torch.allclose(other_weights[name], w, rtol=1e-6, atol=1e-8) for name, w in weights.items())


def test_adam_and_a_third_convolution_give_the_unet_other_curves(folder: Path, tmp_path: Path) -> None:
    curves = [
        our_run(seeded("unet", UnetModule, **options), data_module(folder, "unet"), tmp_path)[0]
        for options in ({}, {"optimizer": "adam"}, {"convs_per_stage": 3})
    ]
    default, adam, third = curves
    assert adam[0] == default[0] and not np.allclose(adam[1:], default[1:], rtol=1e-3)
    assert not np.isclose(third[0], default[0], rtol=1e-3)
