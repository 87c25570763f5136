"""fastMRI's VarNet and U-Net on Lightning 2."""

import inspect
from pathlib import Path
from typing import Any

import fastmri
import fastmri.pl_modules
import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from fastmri.data.transforms import UnetDataTransform, UnetSample, VarNetDataTransform
from helpers import column_mask, randn_complex
from torch.utils.data import DataLoader

from fastmri_ufloss.data import IndexedSliceDataset, MetadataIndex, create_mask_for_mask_type
from fastmri_ufloss.losses import UFLoss, make_loss
from fastmri_ufloss.models import PatchFeatureNet
from fastmri_ufloss.pl_modules import UnetModule, VarNetModule
from fastmri_ufloss.simulation.simulate import simulate_kspace, write_volume

VARNET = {"num_cascades": 1, "pools": 2, "chans": 2, "sens_pools": 2, "sens_chans": 2}
UNET = {"chans": 4, "num_pool_layers": 2}
CLASSES = {
    "varnet": (VarNetModule, fastmri.pl_modules.VarNetModule, VARNET),
    "unet": (UnetModule, fastmri.pl_modules.UnetModule, UNET),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("volumes")
    rng = np.random.default_rng(0)
    y, x = np.mgrid[-1:1:40j, -1:1:44j]
    images = (x**2 + y**2 < 0.7) * (1 + 0.3 * rng.random((2, 40, 44)))
    write_volume(folder / "a.h5", 1e-4 * simulate_kspace(images, num_coils=3, seed=1))
    return folder


def loader(folder: Path, kind: str) -> DataLoader:
    mask_func = create_mask_for_mask_type("random", [0.3], [2])
    transform = VarNetDataTransform(mask_func) if kind == "varnet" else UnetDataTransform("multicoil", mask_func)
    index = MetadataIndex(folder.parent / "index.json", challenge="multicoil")
    return DataLoader(IndexedSliceDataset(folder, "multicoil", index=index, transform=transform))


def fit(module: pl.LightningModule, data: DataLoader, path: Path, **options: Any) -> pl.Trainer:
    trainer = pl.Trainer(
        accelerator="cpu",
        default_root_dir=path,
        logger=False,
        enable_progress_bar=False,
        max_epochs=1,
        **options,
    )
    trainer.fit(module, data, data)
    return trainer


@pytest.mark.parametrize("kind", ["varnet", "unet"])
def test_trains_validates_and_tests(folder: Path, tmp_path: Path, kind: str) -> None:
    torch.manual_seed(0)
    module = VarNetModule(**VARNET) if kind == "varnet" else UnetModule(**UNET)
    before = [p.clone() for p in module.parameters()]
    data = loader(folder, kind)
    trainer = fit(module, data, tmp_path)
    assert any(not torch.equal(a, b) for a, b in zip(before, module.parameters(), strict=True))
    assert np.isfinite(float(trainer.callback_metrics["val_metrics/ssim"]))
    trainer.test(module, data, verbose=False)
    assert (tmp_path / "reconstructions" / "a.h5").is_file()


@pytest.mark.parametrize("kind", ["varnet", "unet"])
def test_default_loss_is_fastmris(folder: Path, kind: str) -> None:
    ours_class, theirs_class, settings = CLASSES[kind]
    torch.manual_seed(0)
    ours = ours_class(**settings)
    torch.manual_seed(0)
    theirs = theirs_class(**settings)
    for module in (ours, theirs):
        module.log = lambda *args, **kwargs: None
    for batch in loader(folder, kind):
        torch.testing.assert_close(ours.training_step(batch, 0), theirs.training_step(batch, 0))
        a, b = ours.validation_step(batch, 0), theirs.validation_step(batch, 0)
        torch.testing.assert_close(a["val_loss"], b["val_loss"])
    assert type(ours.configure_optimizers()[0][0]) is type(theirs.configure_optimizers()[0][0])


class Recorder(torch.nn.Module):
    """The mean absolute difference, which keeps what it was called with."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = []

    def forward(self, output: torch.Tensor, target: torch.Tensor, data_range: torch.Tensor) -> torch.Tensor:
        self.calls.append((output.detach(), target.detach(), data_range))
        # a data range in float64 would make the loss float64
        return ((output - target) / data_range[:, None, None, None]).abs().mean()


def module_with(loss: torch.nn.Module | None, kind: str, **options: Any) -> pl.LightningModule:
    module = CLASSES[kind][0](loss=loss, **CLASSES[kind][2], **options)
    module.log = lambda *args, **kwargs: None
    return module


@pytest.mark.parametrize("kind", ["varnet", "unet"])
def test_a_loss_of_ones_own_is_used_for_training_and_validation(folder: Path, kind: str) -> None:
    loss = Recorder()
    module = module_with(loss, kind)
    batch = next(iter(loader(folder, kind)))
    module.training_step(batch, 0).backward()
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in module.parameters())
    logs = module.validation_step(batch, 0)
    assert torch.isfinite(logs["val_loss"])
    for output, target, data_range in loss.calls:
        assert output.shape == target.shape == (1, 1, 40, 44)
        # in the intensities of the file, so that the data range belongs to it
        assert 0.3 < float(target.max() / data_range.max()) <= 1.01
    assert len(loss.calls) == 2 and "loss" not in module.hparams


def unet_batch(dtype: torch.dtype) -> UnetSample:
    """Two slices with numbers of their own."""
    numbers = [torch.tensor(pair, dtype=dtype) for pair in ((2.0, -1.0), (0.5, 3.0), (7.0, 9.0))]
    images = torch.randn(2, 2, 20, 24, generator=torch.Generator().manual_seed(0))
    return UnetSample(images[0], images[1], numbers[0], numbers[1], ["a.h5", "a.h5"], torch.arange(2), numbers[2])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_unet_loss_gets_the_intensities_of_each_file_in_float32(dtype: torch.dtype) -> None:
    loss = Recorder()
    module = module_with(loss, "unet").eval()
    batch = unet_batch(dtype)
    value = module.training_step(batch, 0)
    logs = module.validation_step(batch, 0)
    assert value.dtype == logs["val_loss"].dtype == torch.float32
    assert logs["max_value"] is batch.max_value  # fastMRI's metrics take it as it is
    with torch.no_grad():
        image = module(batch.image)
    for output, target, data_range in loss.calls:
        for x, normalized in ((output, image), (target, batch.target)):
            assert x.dtype == torch.float32
            torch.testing.assert_close(x[0, 0], normalized[0] * 0.5 + 2)
            torch.testing.assert_close(x[1, 0], normalized[1] * 3 - 1)
        assert torch.equal(data_range, torch.tensor([7.0, 9.0]))  # float32
    theirs = fastmri.pl_modules.UnetModule.validation_step(module, unet_batch(torch.float32), 0)
    torch.testing.assert_close(logs["output"], theirs["output"])
    torch.testing.assert_close(logs["target"], theirs["target"])


def test_varnet_loss_stays_float32(folder: Path) -> None:
    loss = Recorder()
    module = module_with(loss, "varnet")
    batch = next(iter(loader(folder, "varnet")))
    assert batch.max_value.dtype == torch.float64  # of a Python number, when it is collated
    logs = module.validation_step(batch, 0)
    assert module.training_step(batch, 0).dtype == logs["val_loss"].dtype == torch.float32
    assert {x.dtype for call in loss.calls for x in call} == {torch.float32}
    assert logs["max_value"] is batch.max_value


def test_mps_gets_no_float64(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pl.LightningModule, "transfer_batch_to_device", lambda self, batch, *args: batch)
    batch = next(iter(loader(folder, "varnet")))
    module = module_with(None, "varnet")
    moved = module.transfer_batch_to_device(batch, torch.device("mps"), 0)
    assert moved.max_value.dtype == torch.float32 and moved.masked_kspace is batch.masked_kspace
    assert module.transfer_batch_to_device(batch, torch.device("cpu"), 0).max_value.dtype == torch.float64


def test_varnet_takes_the_center_lines_of_each_sample() -> None:
    module, host = VarNetModule(**VARNET), fastmri.pl_modules.VarNetModule(**VARNET)
    host.load_state_dict(module.state_dict())
    mask = torch.cat([column_mask(1, 36, center=n) for n in (6, 12)])
    kspace = torch.view_as_real(randn_complex(2, 4, 40, 36)) * mask
    with torch.no_grad():
        found = module(kspace, mask, torch.tensor([6, 12]))
        assert torch.equal(module(kspace, mask, torch.tensor([0, 12])), found)  # counted where it is not known
        for i, number in enumerate((6, 12)):
            expected = host(kspace[i, None], mask[i, None], number)
            assert torch.equal(module(kspace[i, None], mask[i, None], number), expected)
            torch.testing.assert_close(found[i, None], expected, rtol=1e-5, atol=1e-6)


def test_unet_needs_a_target() -> None:
    batch = unet_batch(torch.float32)._replace(target=torch.zeros(2, 1))
    for loss in (None, Recorder()):
        module = module_with(loss, "unet")
        for step in (module.training_step, module.validation_step):
            with pytest.raises(ValueError, match=r"a\.h5 has no target image"):
                step(batch, 0)


def test_optimizers_of_the_unet() -> None:
    options = {"lr": 3e-4, "weight_decay": 0.1, "lr_step_size": 7, "lr_gamma": 0.5}
    for name, kind in (("rmsprop", torch.optim.RMSprop), ("adam", torch.optim.Adam)):
        module = UnetModule(**UNET, **options, optimizer=name)
        (optimizer,), (schedule,) = module.configure_optimizers()
        assert type(optimizer) is kind
        assert optimizer.param_groups[0]["lr"] == 3e-4 and optimizer.param_groups[0]["weight_decay"] == 0.1
        assert sum(len(group["params"]) for group in optimizer.param_groups) == len(list(module.parameters()))
        assert (schedule.step_size, schedule.gamma) == (7, 0.5)
    with pytest.raises(ValueError, match="optimizer must be one of rmsprop, adam, got 'sgd'"):
        UnetModule(**UNET, optimizer="sgd")
    with pytest.raises(ValueError, match="convs_per_stage must be at least 2, got 1"):
        UnetModule(**UNET, convs_per_stage=1)


def save(module: pl.LightningModule, path: Path) -> Path:
    """A checkpoint without a run: fastMRI's own modules cannot have one on Lightning 2."""
    trainer = pl.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, default_root_dir=path.parent)
    trainer.strategy.connect(module)
    trainer.save_checkpoint(path)
    return path


def assert_same_weights(a: torch.nn.Module, b: torch.nn.Module) -> None:
    for (name, x), (other, y) in zip(a.named_parameters(), b.named_parameters(), strict=True):
        assert name == other and torch.equal(x, y), name


def test_a_checkpoint_restores_the_unets_own_options(folder: Path, tmp_path: Path) -> None:
    module = UnetModule(**UNET, convs_per_stage=3, optimizer="adam", lr=1e-4)
    fit(module, loader(folder, "unet"), tmp_path).save_checkpoint(tmp_path / "unet.ckpt")
    loaded = UnetModule.load_from_checkpoint(tmp_path / "unet.ckpt", weights_only=True)
    assert_same_weights(module, loaded)
    assert loaded.hparams == module.hparams and loaded.hparams["convs_per_stage"] == 3
    assert isinstance(loaded.configure_optimizers()[0][0], torch.optim.Adam)


@pytest.mark.parametrize("kind", ["varnet", "unet"])
def test_checkpoints_go_to_fastmris_class_and_come_from_it(folder: Path, tmp_path: Path, kind: str) -> None:
    ours_class, theirs_class, settings = CLASSES[kind]
    ours = ours_class(**settings)
    fit(ours, loader(folder, kind), tmp_path).save_checkpoint(tmp_path / "ours.ckpt")
    is_asked = "weights_only" in inspect.signature(pl.LightningModule.load_from_checkpoint).parameters
    theirs = theirs_class.load_from_checkpoint(tmp_path / "ours.ckpt", **({"weights_only": True} if is_asked else {}))
    assert_same_weights(ours, theirs)
    again = ours_class.load_from_checkpoint(tmp_path / "ours.ckpt", weights_only=True)
    assert_same_weights(ours, again)
    assert again.hparams == ours.hparams
    torch.manual_seed(5)
    path = save(theirs_class(**settings, num_log_images=3), tmp_path / "theirs.ckpt")
    torch.manual_seed(5)
    loaded = ours_class.load_from_checkpoint(path, weights_only=True)
    torch.manual_seed(5)
    assert_same_weights(theirs_class(**settings), loaded)
    assert loaded.num_log_images == 3


def test_fine_tuning_with_another_loss(folder: Path, tmp_path: Path) -> None:
    module = VarNetModule(**VARNET)
    assert "loss.w" in module.state_dict()  # of fastMRI's SSIM
    fit(module, loader(folder, "varnet"), tmp_path).save_checkpoint(tmp_path / "ssim.ckpt")
    l1 = make_loss({"l1": 1.0})
    other_window = fastmri.SSIMLoss(win_size=5)
    for loss in (None, l1, other_window):
        loaded = VarNetModule.load_from_checkpoint(tmp_path / "ssim.ckpt", loss=loss, weights_only=True)
        assert_same_weights(module, loaded)
        assert loss is None or loaded.loss is loss
    assert other_window.w.shape == (1, 1, 5, 5) and float(other_window.w.sum()) == pytest.approx(1)
    fit(loaded, loader(folder, "varnet"), tmp_path)
    # and from a module whose loss has no buffers to one whose loss has
    other = VarNetModule(loss=l1, **VARNET)
    fresh = VarNetModule.load_from_checkpoint(save(other, tmp_path / "l1.ckpt"))
    assert_same_weights(other, fresh)
    assert torch.equal(fresh.loss.w, fastmri.SSIMLoss().w)
    host = save(fastmri.pl_modules.VarNetModule(**VARNET), tmp_path / "host.ckpt")
    assert VarNetModule.load_from_checkpoint(host, loss=l1).loss is l1
    UnetModule.load_from_checkpoint(save(UnetModule(**UNET, loss=fastmri.SSIMLoss()), tmp_path / "unet.ckpt"))


def test_a_loss_of_ones_own_is_restored(tmp_path: Path) -> None:
    trained, fresh = fastmri.SSIMLoss(), fastmri.SSIMLoss()
    trained.w.mul_(2)
    path = save(VarNetModule(**VARNET, loss=trained), tmp_path / "own.ckpt")
    loaded = VarNetModule.load_from_checkpoint(path, loss=fresh, weights_only=True)
    assert loaded.loss is fresh and torch.equal(fresh.w, trained.w)


@pytest.mark.parametrize("kind", ["varnet", "unet"])
def test_a_network_must_fit_whatever_the_loss(kind: str) -> None:
    module = module_with(make_loss({"l1": 1.0}), kind)
    state = CLASSES[kind][1](**CLASSES[kind][2]).state_dict()
    name = next(name for name in state if name.startswith(kind))
    for wrong, message in (
        ({other: weight for other, weight in state.items() if other != name}, "Missing key"),
        ({**state, f"{name}.more": state[name]}, "Unexpected key"),
        ({**state, name: torch.zeros(7, 7)}, "size mismatch"),
    ):
        with pytest.raises(RuntimeError, match=message):
            module.load_state_dict(wrong)


def test_ufloss_weight_reaches_the_network_gradient(folder: Path) -> None:
    net = PatchFeatureNet(1, patch_size=32, num_features=8)
    batch = next(iter(loader(folder, "varnet")))
    gradients = []
    for weight in (0.0, 1.5):
        torch.manual_seed(0)
        module = VarNetModule(loss=make_loss({"ssim": 1.0, "ufloss": weight}, feature_net=net), **VARNET)
        module.log = lambda *args, **kwargs: None
        torch.manual_seed(1)
        module.training_step(batch, 0).backward()
        gradients.append(torch.cat([p.grad.flatten() for p in module.varnet.parameters() if p.grad is not None]))
    assert not torch.allclose(*gradients)
    assert isinstance(module.loss.terms["ufloss"], UFLoss)
    assert all(p.grad is None for p in net.parameters())
