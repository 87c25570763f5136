"""A training that is killed at a checkpoint and started again ends as one that was not."""

import contextlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from helpers import simulate_volume
from pytorch_lightning.callbacks import ModelCheckpoint

from fastmri_ufloss.data import MoDLDataTransform, UnitSensMaps, create_mask_for_mask_type
from fastmri_ufloss.losses import make_loss
from fastmri_ufloss.models import PatchFeatureNet
from fastmri_ufloss.pl_modules import MoDLModule, MriDataModule, RecNetModule, RefinementModule, SeededSteps
from fastmri_ufloss.pl_modules.base_module import AtomicCheckpointIO, LastCheckpoint


class Killed(BaseException):
    """No exception that anybody handles."""


class KilledAtWrite(AtomicCheckpointIO):
    """Ends the process, as it were, right after a number of writes."""

    def __init__(self, number: int | None = None) -> None:
        self.count, self.number = 0, number

    def save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        super().save_checkpoint(*args, **kwargs)
        self.count += 1
        if self.count == self.number:
            raise Killed


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three volumes of two slices for training, one for validation."""
    root = tmp_path_factory.mktemp("data")
    for name, split in zip("abcd", ("train", "train", "train", "val"), strict=True):
        images = 1e-4 * (0.5 + np.random.default_rng(ord(name)).random((2, 44, 40)))
        simulate_volume(root / f"singlecoil_{split}" / f"{name}.h5", images, num_coils=None, recon_size=(40, 40))
    return root


def train(root: Path, folder: Path, kind: str, *, kill_at: int | None = None, **options: Any) -> int:
    """The number of checkpoints that a run writes, until its end or until it is killed."""
    mask_func = create_mask_for_mask_type("random", [0.25], [3])
    transforms = [
        MoDLDataTransform(mask_func, use_seed=seed, sens_maps=UnitSensMaps()) for seed in (False, True, True)
    ]
    data = MriDataModule(
        root, "singlecoil", *transforms, cache_dir=root / "cache", mask_func=mask_func, batch_size=2, num_workers=0
    )  # fmt: skip
    torch.manual_seed(0)
    module: pl.LightningModule
    if kind == "modl":
        settings = {"num_unrolls": 1, "num_cg_iterations": 1, "chans": 2, "lr": 1e-2, "warmup_steps": 0}
        net = PatchFeatureNet(2, patch_size=40, num_features=4, architecture="narrow", width=2)
        module = MoDLModule(**settings, loss=make_loss({"l2": 1.0, "ufloss": "auto"}, feature_net=net))
    else:
        small = {"refinement_chans": 2, "discriminator_chans": 2, "num_strided": 2, "replay_size": 3, "lr": 1e-2}
        accumulate = options.pop("accumulate_grad_batches", 1)
        module = RefinementModule(RecNetModule(num_blocks=1, chans=2), **small, accumulate_grad_batches=accumulate)
    last, writer = folder / "last.ckpt", KilledAtWrite(kill_at)
    best = ModelCheckpoint(folder, "best", monitor="validation_loss", enable_version_counter=False)
    every = LastCheckpoint(last, every_n_train_steps=1 if kind == "modl" else 2)  # of two optimizers
    trainer = pl.Trainer(
        accelerator="cpu",
        callbacks=[best, every, SeededSteps(0)],
        plugins=[writer],
        default_root_dir=folder,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
        **options,
    )
    with contextlib.suppress(Killed):
        trainer.fit(module, datamodule=data, ckpt_path=last if last.is_file() else None)
    return writer.count


def content(folder: Path) -> list[Any]:
    """What counts of the checkpoints."""
    found = [torch.load(folder / f"{name}.ckpt", weights_only=True) for name in ("last", "best")]
    scores = [state["best_model_score"] for key, state in found[0]["callbacks"].items() if "validation" in key]
    parts = [(c["global_step"], c["state_dict"], c["optimizer_states"], c.get("adversarial")) for c in found]
    return [scores, parts]


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("modl", {"max_epochs": 2}),
        ("modl", {"max_steps": 5, "check_val_every_n_epoch": 2, "accumulate_grad_batches": 2}),
        ("refinement", {"max_epochs": 2, "limit_train_batches": 2}),
        ("refinement", {"max_epochs": 2, "accumulate_grad_batches": 2}),
    ],
)
def test_a_run_that_is_killed_goes_on_to_the_same_end(
    root: Path, tmp_path: Path, kind: str, options: dict[str, Any]
) -> None:
    writes = train(root, tmp_path / "whole", kind, **options)
    whole = content(tmp_path / "whole")
    assert writes >= 4
    for number in range(1, writes + 1):
        folder = tmp_path / str(number)
        for kill_at in (number, 1, None):
            train(root, folder, kind, kill_at=kill_at, **options)
        torch.testing.assert_close(content(folder), whole, rtol=0, atol=0, msg=f"killed after write {number}")


@pytest.mark.parametrize("room", [100, 20_000, -1])  # less than the header, than the values, than all bytes
def test_a_checkpoint_that_does_not_fit_on_the_disk_leaves_the_one_before(tmp_path: Path, room: int) -> None:
    resource = pytest.importorskip("resource")
    writer, path, larger = AtomicCheckpointIO(), tmp_path / "last.ckpt", {"step": 2, "weights": torch.zeros(10_000)}
    writer.save_checkpoint(larger, path)
    room += path.stat().st_size if room < 0 else 0
    writer.save_checkpoint({"step": 1}, path)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, limits[1]))
    try:
        with pytest.raises(OSError, match=r"last\.ckpt could not be written"):
            writer.save_checkpoint(larger, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert torch.load(path, weights_only=True) == {"step": 1}
    assert list(tmp_path.iterdir()) == [path]
