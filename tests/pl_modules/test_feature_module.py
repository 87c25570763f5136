"""Run as a script, this file is one of the processes of a training, see `train` and `main`."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from helpers import ROOT, replace_batch_norm
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

from fastmri_ufloss.models.feature_net import PatchFeatureNet
from fastmri_ufloss.pl_modules.feature_module import FeatureModule, patch_with_noise, retrieval_at_1

SIZE, MARGIN = 32, 2


def patch_data(number=16, in_chans=2, seed=0):
    """Smooth random patches with their numbers."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(number, in_chans, 6, 6, generator=generator)
    patches = torch.nn.functional.interpolate(coarse, SIZE + 2 * MARGIN, mode="bicubic")
    return TensorDataset(patches if in_chans == 2 else patches.abs(), torch.arange(number))


def make_module(num_patches=16, **options):
    torch.manual_seed(0)
    return FeatureModule(num_patches, num_features=16, patch_size=SIZE, **options)


def make_trainer(folder, **options):
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    options = {"enable_checkpointing": False, "devices": 1, **quiet, **options}
    return pl.Trainer(accelerator="cpu", default_root_dir=folder, num_sanity_val_steps=0, **options)


class FirstStep(pl.Callback):
    """Keeps the gradient of the first step, as the optimizer sees it, and whether DDP sends the bank."""

    def __init__(self):
        self.gradient = {}
        self.buffers_of_ddp = None

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        if not self.gradient:
            self.gradient = {n: p.grad.clone() for n, p in pl_module.named_parameters()}
            self.buffers_of_ddp = getattr(trainer.strategy.model, "modules_buffers", None)


def train(folder, processes):
    """Two steps of 8 patches and a validation in float64; what came of it."""
    module, first = make_module(temperature=0.1, bank_chunk_size=5), FirstStep()
    replace_batch_norm(module.feature_net)
    strategy = "ddp" if processes > 1 else "auto"
    trainer = make_trainer(
        folder, max_epochs=1, devices=processes, strategy=strategy, precision="64-true", callbacks=[first]
    )
    batch_size, rank = 8 // processes, int(os.environ.get("LOCAL_RANK", 0))
    # Lightning's own sampler shuffles, also where the loader does not
    sampler = DistributedSampler(patch_data(), processes, rank, shuffle=False)
    trainer.fit(
        module,
        DataLoader(patch_data(), batch_size=batch_size, sampler=sampler),
        DataLoader(patch_data(9, seed=1), batch_size=batch_size),
    )
    return {
        "state": module.state_dict(),
        "gradient": first.gradient,
        "retrieval": {k: float(v) for k, v in trainer.callback_metrics.items() if "retrieval" in k},
        "is_ddp": first.buffers_of_ddp is not None,
        "bank_is_sent": any(buffer is module.bank.vectors for buffer in first.buffers_of_ddp or []),
    }


def main(folder):
    """One of two processes."""
    torch.set_num_threads(1)
    torch.save(train(folder, 2), Path(folder) / f"rank{os.environ['LOCAL_RANK']}.pt")


def test_two_processes_give_what_one_gives(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    path = os.pathsep.join([str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")])
    environment = {
        **os.environ,
        "PYTHONPATH": path,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
        "CUDA_VISIBLE_DEVICES": "",
    }
    command = [sys.executable, __file__, str(tmp_path)]
    workers = [subprocess.Popen(command, env={**environment, "LOCAL_RANK": rank}) for rank in "01"]
    try:
        expected = train(tmp_path, 1)
        assert [worker.wait(timeout=120) for worker in workers] == [0, 0]
    finally:
        for worker in workers:
            worker.kill()
    for rank in "01":
        found = torch.load(tmp_path / f"rank{rank}.pt", weights_only=True)
        assert found["is_ddp"] and not found["bank_is_sent"]
        torch.testing.assert_close(found["gradient"], expected["gradient"], atol=1e-9, rtol=1e-6)
        torch.testing.assert_close(found["state"], expected["state"], atol=1e-7, rtol=1e-6)
        assert found["retrieval"] == pytest.approx(expected["retrieval"])


def test_training_goes_on_from_a_checkpoint_exactly(tmp_path):
    def loader():
        return DataLoader(patch_data(), batch_size=4)

    straight = make_module()
    make_trainer(tmp_path, max_epochs=2).fit(straight, loader())
    first, path = make_module(), tmp_path / "first.ckpt"
    stop = pl.callbacks.LambdaCallback(on_train_epoch_end=lambda trainer, _: setattr(trainer, "should_stop", True))
    trainer = make_trainer(tmp_path, max_epochs=2, callbacks=[stop])
    trainer.fit(first, loader())
    assert trainer.current_epoch == 1
    trainer.save_checkpoint(path)
    checkpoint = torch.load(path, weights_only=True)
    assert torch.equal(checkpoint["state_dict"]["bank.vectors"], first.bank.vectors)
    resumed = FeatureModule.load_from_checkpoint(path)
    assert dict(resumed.hparams) == dict(first.hparams)
    torch.testing.assert_close(resumed.state_dict(), first.state_dict(), atol=0, rtol=0)
    make_trainer(tmp_path, max_epochs=2).fit(resumed, loader(), ckpt_path=path)
    torch.testing.assert_close(resumed.state_dict(), straight.state_dict(), atol=0, rtol=0)


def test_a_checkpoint_within_an_epoch_has_the_bank_of_its_step(tmp_path):
    saver = pl.callbacks.ModelCheckpoint(dirpath=tmp_path, every_n_train_steps=2, filename="{step}")
    module = make_module()
    trainer = make_trainer(tmp_path, max_steps=2, enable_checkpointing=True, callbacks=[saver])
    trainer.fit(module, DataLoader(patch_data(), batch_size=4))
    saved = torch.load(tmp_path / "step=2.ckpt", weights_only=True)["state_dict"]
    torch.testing.assert_close(saved, module.state_dict(), atol=0, rtol=0)


def test_training_lowers_the_loss_and_fills_the_bank(tmp_path):
    module = make_module(lr=1e-3, phase_augmentation=True, magnitude_augmentation=True)
    before = module.bank.vectors.clone()
    losses = []

    class Losses(pl.Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            losses.append(float(outputs["loss"]))

    trainer = make_trainer(tmp_path, max_epochs=24, callbacks=[Losses()])
    trainer.fit(module, DataLoader(patch_data(), batch_size=8))
    assert np.mean(losses[-8:]) < 0.7 * np.mean(losses[:4])  # of a batch it goes up and down
    assert float(trainer.callback_metrics["train_loss"]) == pytest.approx(losses[-1])
    assert float((module.bank.vectors - before).norm(dim=1).min()) > 0
    torch.testing.assert_close(module.bank.vectors.norm(dim=1), torch.ones(16))


@pytest.mark.parametrize("in_chans", [1, 2])
def test_validation_logs_the_mean_of_three_retrievals(tmp_path, in_chans):
    module = make_module(in_chans=in_chans)
    before = module.bank.vectors.clone()
    loader = DataLoader(patch_data(9, in_chans), batch_size=4)
    (values,) = make_trainer(tmp_path).validate(module, loader, verbose=False)
    parts = [values[f"retrieval@1_{name}"] for name in ("shift", "noise", "blur")]
    assert values["retrieval@1"] == pytest.approx(sum(parts) / 3)
    assert all(0 <= part <= 1 for part in parts)
    (again,) = make_trainer(tmp_path).validate(module, loader, verbose=False)
    assert again == values
    assert torch.equal(module.bank.vectors, before)


def test_export_is_the_network_without_the_bank(tmp_path):
    module = make_module(training_data="knees").eval()
    module.export(tmp_path / "net.safetensors")
    net = PatchFeatureNet.load(tmp_path / "net.safetensors")
    assert net.training_data == "knees"
    patches = torch.randn(3, 2, SIZE, SIZE)
    assert torch.equal(net(patches), module(patches))


def test_augmentation_turns_the_phase_and_scales_the_magnitude():
    patches = torch.randn(64, 2, SIZE, SIZE)
    assert make_module()._augment(patches) is patches
    before = torch.complex(*patches.unbind(1))
    ratio = torch.complex(*make_module(phase_augmentation=True)._augment(patches).unbind(1)) / before
    # neighbors turn alike, and no polynomial above the second degree is needed
    steps = (ratio[:, 1:] * ratio[:, :-1].conj()).angle()
    assert float(steps.abs().max()) < 20 / SIZE
    assert float((steps[:, 2:] - 2 * steps[:, 1:-1] + steps[:, :-2]).abs().max()) < 1e-2
    torch.testing.assert_close(ratio.abs(), torch.ones(64, SIZE, SIZE), atol=1e-3, rtol=0)
    assert float(ratio[:, 0, 0].angle().std()) > 1
    factor = make_module(magnitude_augmentation=True)._augment(patches) / patches
    assert 0.9 <= float(factor.min()) < 0.92 and 1.08 < float(factor.max()) <= 1.1 + 1e-6
    torch.testing.assert_close(factor, factor[:, :1, :1, :1].expand_as(factor))


def test_retrieval_counts_each_patch_once():
    patches = torch.eye(4)
    wrong_for_one = patches[[0, 1, 3, 3]]
    features = torch.stack([patches, patches, wrong_for_one], dim=1)
    repeated = torch.tensor([3, 0, 2, 1, 2, 2])
    for chunk_size in (1, 3, 1024):
        found = retrieval_at_1(repeated, features[repeated], chunk_size=chunk_size)
        assert found.tolist() == [1.0, 0.75]


def test_noise_of_a_patch_depends_on_its_number_only():
    patches = torch.zeros(3, 2, 200, 200)
    noise = patch_with_noise(patches, torch.tensor([5, 6, 5]), std=0.1)
    assert torch.equal(noise[0], noise[2]) and not torch.equal(noise[0], noise[1])
    assert float(noise.square().sum(dim=1).mean().sqrt()) == pytest.approx(0.1, rel=0.02)
    magnitude = patch_with_noise(patches[:, :1], torch.tensor([5, 6, 5]), std=0.1)
    torch.testing.assert_close(magnitude[:, 0], torch.complex(*noise.unbind(1)).abs())


def test_bad_input():
    with pytest.raises(ValueError, match="temperature must be positive, got 0"):
        make_module(temperature=0.0)
    with pytest.raises(ValueError, match="phase_augmentation must be off for magnitude patches"):
        make_module(in_chans=1, phase_augmentation=True)
    module = make_module()
    with pytest.raises(ValueError, match=r"margin of at least 0 around 32x32, got \(2, 2, 30, 30\)"):
        module.training_step((torch.zeros(2, 2, 30, 30), torch.tensor([0, 1])), 0)
    with pytest.raises(ValueError, match="margin of at least 2"):
        module.validation_step((torch.zeros(2, 2, 34, 34), torch.tensor([0, 1])), 0)


if __name__ == "__main__":
    main(sys.argv[1])
