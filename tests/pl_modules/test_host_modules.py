"""fastMRI's VarNet and U-Net on Lightning 2."""

from pathlib import Path
from typing import Any

import fastmri
import fastmri.pl_modules
import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from fastmri.data.transforms import UnetDataTransform, VarNetDataTransform
from torch.utils.data import DataLoader

from fastmri_ufloss.data import IndexedSliceDataset, MetadataIndex, create_mask_for_mask_type
from fastmri_ufloss.data.simulation.simulate import simulate_kspace, write_volume
from fastmri_ufloss.losses import UFLoss, make_loss
from fastmri_ufloss.models import PatchFeatureNet
from fastmri_ufloss.pl_modules import UnetModule, VarNetModule

VARNET = {"num_cascades": 1, "pools": 2, "chans": 2, "sens_pools": 2, "sens_chans": 2}
UNET = {"chans": 4, "num_pool_layers": 2}


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
    ours_class, theirs_class, settings = {
        "varnet": (VarNetModule, fastmri.pl_modules.VarNetModule, VARNET),
        "unet": (UnetModule, fastmri.pl_modules.UnetModule, UNET),
    }[kind]
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


@pytest.mark.parametrize("kind", ["varnet", "unet"])
def test_a_loss_of_ones_own_is_used_for_training_and_validation(folder: Path, kind: str) -> None:
    seen = []

    class Loss(torch.nn.Module):
        def forward(self, output: torch.Tensor, target: torch.Tensor, data_range: torch.Tensor) -> torch.Tensor:
            seen.append((output.shape, target.detach().clone(), data_range))
            return (output - target).abs().mean() * 1e4

    module = VarNetModule(loss=Loss(), **VARNET) if kind == "varnet" else UnetModule(loss=Loss(), **UNET)
    module.log = lambda *args, **kwargs: None
    data = loader(folder, kind)
    batch = next(iter(data))
    module.training_step(batch, 0).backward()
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in module.parameters())
    logs = module.validation_step(batch, 0)
    assert torch.isfinite(logs["val_loss"])
    for shape, target, data_range in seen:
        assert shape == (1, 1, 40, 44)
        # in the intensities of the file, so that the data range belongs to it
        assert 0.3 < float(target.max() / data_range.max()) <= 1.01
    assert "loss" not in module.hparams


def test_readme_example_ufloss_in_a_varnet_run(folder: Path, tmp_path: Path) -> None:
    """The lines of the README, between its two comments, with a small VarNet."""
    net_file = tmp_path / "feature_net.safetensors"
    PatchFeatureNet(1, patch_size=32, num_features=8).save(net_file)
    from helpers import ROOT

    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    code = next(part for part in readme.split("```") if "# UFLoss in a VarNet run" in part).splitlines()[1:]
    statements = [line for line in code if line.strip() and not line.startswith(("#", "from"))]
    assert 1 <= len(statements) <= 5
    source = "\n".join(code).replace('"feature_net.safetensors"', repr(str(net_file)))
    source = source.replace("VarNetModule(", f"VarNetModule(**{VARNET!r}, ")
    names: dict[str, Any] = {}
    exec(source, names)
    module = names["module"]
    trainer = fit(module, loader(folder, "varnet"), tmp_path)
    assert np.isfinite(float(trainer.callback_metrics["train_terms/ufloss"]))
    checkpoint = tmp_path / "model.ckpt"
    trainer.save_checkpoint(checkpoint)
    stored = torch.load(checkpoint, weights_only=True)
    assert not [name for name in stored["state_dict"] if "feature_net" in name]


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
