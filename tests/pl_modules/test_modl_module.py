"""MoDL under Lightning: processes, the test's table and picture."""

import inspect
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from fastmri.evaluate import nmse

from fastmri_ufloss.data import MoDLDataTransform, SensMapCache, create_mask_for_mask_type
from fastmri_ufloss.losses import make_loss
from fastmri_ufloss.models import MoDL, PatchFeatureNet, RecNet
from fastmri_ufloss.mri import cg_sense
from fastmri_ufloss.pl_modules import (
    MoDLModule,
    MriDataModule,
    RecNetModule,
    SeededSteps,
)
from fastmri_ufloss.simulation.simulate import simulate_kspace, write_volume

MODEL = {"num_unrolls": 2, "num_cg_iterations": 2, "chans": 4}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    y, x = np.mgrid[-1:1:40j, -1:1:44j]
    for split, names in {"train": "abc", "val": "de", "test": "fg"}.items():
        for i, name in enumerate(names):
            images = (x**2 + y**2 < 0.7) * (1 + 0.5 * rng.random((2, 40, 44)))
            kspace = 1e-4 * simulate_kspace(images[..., : 44 - 4 * (i == 1)], num_coils=3, seed=i)
            write_volume(root / f"multicoil_{split}" / f"{name}.h5", kspace, recon_size=(36, 36))
    return root


def data_module(root: Path, *, batch_size: int = 1, maps: bool = True, workers: int = 0) -> MriDataModule:
    mask_func = create_mask_for_mask_type("random", [0.3], [2])
    source = SensMapCache(root / "cache" / "maps") if maps else None
    transforms = [
        MoDLDataTransform(mask_func, use_seed=use_seed, sens_maps=source) for use_seed in (False, True, True)
    ]
    return MriDataModule(
        root,
        "multicoil",
        *transforms,
        cache_dir=root / "cache",
        mask_func=mask_func,
        batch_size=batch_size,
        num_workers=workers,
    )


def module_with(net: PatchFeatureNet | None = None) -> MoDLModule:
    torch.manual_seed(0)
    weights = {"l2": 1.0} if net is None else {"l2": 1.0, "ufloss": 1.5}
    return MoDLModule(
        **MODEL,
        loss=make_loss(weights, feature_net=net),
        score_feature_net=net,
        lr=1e-2,
        warmup_steps=0,
        score_stride=4,
    )


def trainer(path: Path, **options: Any) -> pl.Trainer:
    settings = {
        "accelerator": "cpu",
        "default_root_dir": path,
        "logger": False,
        "enable_progress_bar": False,
        "use_distributed_sampler": False,
        "num_sanity_val_steps": 0,
        "max_epochs": 3,
        **options,
    }
    return pl.Trainer(**{**settings, "callbacks": [SeededSteps(0), *settings.get("callbacks", [])]})


def weights_of(module: torch.nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in module.parameters() if p.requires_grad])


@pytest.fixture(scope="module")
def net() -> PatchFeatureNet:
    torch.manual_seed(1)
    return PatchFeatureNet(2, patch_size=32, num_features=8)


def test_volumes_of_different_sizes_train_in_batches(root: Path, tmp_path: Path) -> None:
    runner = trainer(tmp_path, max_epochs=1)
    runner.fit(module_with(), datamodule=data_module(root, batch_size=2))
    assert runner.global_step == 3
    assert np.isfinite(float(runner.callback_metrics["validation_loss"]))


def test_result_does_not_depend_on_the_number_of_workers(root: Path, tmp_path: Path) -> None:
    finals = []
    for workers in (0, 2):
        module = module_with()
        runner = trainer(tmp_path / str(workers), max_epochs=2)
        runner.fit(module, datamodule=data_module(root, workers=workers))
        finals.append(weights_of(module))
    assert torch.equal(*finals)


def test_maps_of_the_device_and_of_the_cache_give_the_same_batch(root: Path) -> None:
    module = module_with().eval()
    for cached, computed in zip(
        *(data_module(root, maps=maps).val_dataloader() for maps in (True, False)), strict=True
    ):
        assert cached.sens_maps is not None and computed.sens_maps is None
        with torch.no_grad():
            a, b = module.reconstruct(cached), module.reconstruct(computed)
        for x, y in ((a.image, b.image), (a.reference, b.reference)):
            assert float((x - y).norm() / y.norm()) < 2e-3  # half precision of the cache


def test_test_writes_files_and_stages(root: Path, tmp_path: Path, net: PatchFeatureNet) -> None:
    module = module_with(net)
    module.add_methods({"doubled": lambda *data: 2 * cg_sense(*data)})
    trainer(tmp_path).test(module, datamodule=data_module(root, batch_size=2), verbose=False)
    stages = ("reconstructions", "stages/zero_filled", "stages/cg_sense", "stages/doubled", "stages/reference")
    for name in ("f.h5", "g.h5"):
        images = {}
        for stage in stages:
            with h5py.File(tmp_path / stage / name) as file:
                images[stage] = file["reconstruction"][()]
                assert ("mask" in file) == (stage != "stages/reference")
        with h5py.File(root / "multicoil_test" / name) as volume:
            target = volume["reconstruction_rss"][()]
        assert all(image.shape == target.shape == (2, 36, 36) for image in images.values())
        errors = [float(nmse(images["stages/reference"], images[stage])) for stage in stages[:3]]
        assert errors[2] < errors[1] and errors[0] > 0
        np.testing.assert_allclose(images["stages/doubled"], 2 * images["stages/cg_sense"], rtol=1e-5)
    ufloss = module.ufloss_of_volumes()
    assert list(ufloss) == ["zero_filled", "cg_sense", "doubled", "reconstruction"]
    assert ufloss["doubled"] != ufloss["cg_sense"]
    for values in ufloss.values():
        assert sorted(values) == ["f.h5", "g.h5"] and all(0 < value < 4 for value in values.values())
    assert not any(name.startswith("score") for name in module.state_dict())


def test_fastmri_evaluates_the_files(root: Path, tmp_path: Path) -> None:
    trainer(tmp_path).test(module_with(), datamodule=data_module(root), verbose=False)
    command = [sys.executable, "-m", "fastmri_ufloss.metrics.evaluate"]
    command += ["--challenge", "multicoil", "--target-path"]
    command += [str(root / "multicoil_test"), "--predictions-path", str(tmp_path / "reconstructions")]
    output = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ).stdout
    assert "NMSE" in output and "SSIM" in output


class Rates(pl.Callback):
    """The learning rate of each step."""

    def __init__(self) -> None:
        self.rates: list[float] = []

    def on_before_optimizer_step(self, trainer: pl.Trainer, module: Any, optimizer: torch.optim.Optimizer) -> None:
        self.rates.append(optimizer.param_groups[0]["lr"])


@pytest.mark.parametrize("kind", [MoDLModule, RecNetModule])
@pytest.mark.parametrize("step_size", [None, 2])
def test_the_learning_rate_follows_its_schedule(
    kind: type[MoDLModule | RecNetModule], step_size: int | None, root: Path, tmp_path: Path
) -> None:
    seen = Rates()
    module = kind(chans=2, lr=0.1, warmup_steps=4, lr_step_size=step_size, lr_gamma=0.5)
    trainer(tmp_path, callbacks=[seen]).fit(module, datamodule=data_module(root))  # 3 epochs of 6 steps
    steps = np.arange(18)
    expected = 0.1 * np.minimum(1, (steps + 1) / 5) * (1 + np.cos(np.pi * steps / 18)) / 2
    if step_size is not None:
        expected = 0.1 * 0.5 ** (steps // 6 // step_size)
    np.testing.assert_allclose(seen.rates, expected, rtol=1e-6)


def test_checkpoint_gives_the_module_back(root: Path, tmp_path: Path) -> None:
    module, runner = module_with(), trainer(tmp_path, max_epochs=1)
    runner.fit(module, datamodule=data_module(root))
    runner.save_checkpoint(tmp_path / "model.ckpt")
    again = MoDLModule.load_from_checkpoint(tmp_path / "model.ckpt")
    assert torch.equal(weights_of(again), weights_of(module)) and again.hparams.lr == 1e-2


def test_settings_of_the_module_are_those_of_the_network() -> None:
    ours, network = (inspect.signature(kind).parameters for kind in (MoDLModule, MoDL))
    assert {name: ours[name].default for name in network} == {name: p.default for name, p in network.items()}
    ours, network = (inspect.signature(kind).parameters for kind in (RecNetModule, RecNet))
    assert {name: ours[name].default for name in network} == {name: p.default for name, p in network.items()}


def test_a_checkpoint_with_the_networks_settings_apart_loads(tmp_path: Path) -> None:
    """As before version 0.2, when settings that were not typed were other ones."""
    model = {"num_pools": 1}
    unset = {"num_unrolls": 5, "denoiser": "unet", "chans": 64, "share_weights": True}
    module = MoDLModule(**model, **unset)  # type: ignore[arg-type]
    settings = {name: value for name, value in module.hparams.items() if name not in {**model, **unset}}
    content = {"state_dict": module.state_dict(), "hyper_parameters": {**settings, "model": model}}
    content["pytorch-lightning_version"] = pl.__version__
    torch.save(content, tmp_path / "old.ckpt")
    loaded = MoDLModule.load_from_checkpoint(tmp_path / "old.ckpt")
    assert torch.equal(weights_of(loaded), weights_of(module)) and loaded.hparams == module.hparams


def test_bad_checkpoints_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no checkpoint"):
        MoDLModule.load_from_checkpoint(tmp_path / "nothing.ckpt")
    (tmp_path / "text.ckpt").write_text("hello")
    with pytest.raises(ValueError, match=r"text\.ckpt must be a file of torch\.save"):
        MoDLModule.load_from_checkpoint(tmp_path / "text.ckpt")
    torch.save({"weights": 1}, tmp_path / "other.ckpt")
    with pytest.raises(ValueError, match="has no 'state_dict'"):
        MoDLModule.load_from_checkpoint(tmp_path / "other.ckpt")
    torch.save({"state_dict": {"varnet.a": torch.ones(1)}}, tmp_path / "varnet.ckpt")
    with pytest.raises(ValueError, match="checkpoint of another model"):
        MoDLModule.load_from_checkpoint(tmp_path / "varnet.ckpt")
    torch.save({"state_dict": {"modl.a": torch.ones(1)}}, tmp_path / "modl.ckpt")
    with pytest.raises(ValueError, match="does not fit"):
        MoDLModule.load_from_checkpoint(tmp_path / "modl.ckpt")


SCRIPT = """
import sys
from pathlib import Path
sys.path[:0] = [{tests!r}, {tests!r} + "/pl_modules"]
import torch
torch.set_num_threads(1)
from test_modl_module import data_module, module_with, trainer, weights_of
from fastmri_ufloss.models import PatchFeatureNet
torch.manual_seed(1)
net = PatchFeatureNet(2, patch_size=32, num_features=8)
module = module_with(net)
devices = int(sys.argv[1])
options = dict(devices=2, strategy="ddp") if devices == 2 else {{}}
run = trainer(Path(sys.argv[2]), max_epochs=1, precision="64-true", **options)
run.fit(module, datamodule=data_module(Path({root!r}), batch_size=2 // devices))
run.test(module, datamodule=data_module(Path({root!r})), verbose=False)
ufloss = module.ufloss_of_volumes()
if run.is_global_zero:
    torch.save({{"weights": weights_of(module), "ufloss": ufloss}}, Path(sys.argv[2]) / "weights.pt")
"""


def test_two_processes_give_what_one_gives(root: Path, tmp_path: Path) -> None:
    script = tmp_path / "run.py"
    tests = str(Path(__file__).resolve().parents[1])
    script.write_text(SCRIPT.format(tests=tests, root=str(root)))
    for devices in (1, 2):
        (tmp_path / str(devices)).mkdir()
        subprocess.run(
            [sys.executable, str(script), str(devices), str(tmp_path / str(devices))],
            check=True,
            capture_output=True,
            timeout=300,
        )
    one, two = (torch.load(tmp_path / n / "weights.pt", weights_only=True)["weights"] for n in "12")
    assert one.dtype == torch.float64  # in float32 Adam turns rounding errors into steps of visible size
    torch.testing.assert_close(two, one, atol=1e-9, rtol=0)
    assert float((one - weights_of(module_with())).abs().max()) > 0.01  # the cosine halves the mean rate
    for name in ("reconstructions/f.h5", "reconstructions/g.h5", "stages/cg_sense/f.h5"):
        images = []
        for n in "12":
            with h5py.File(tmp_path / n / name) as file:
                images.append(file["reconstruction"][()])
        np.testing.assert_allclose(*images, rtol=1e-3, atol=1e-3 * images[0].max())
    ufloss = [torch.load(tmp_path / n / "weights.pt", weights_only=True)["ufloss"] for n in "12"]
    assert list(ufloss[0]) == ["zero_filled", "cg_sense", "reconstruction"]
    for stage, values in ufloss[0].items():
        assert ufloss[1][stage] == pytest.approx(values, rel=1e-3)
