"""Every kind of network into a folder and back, and what a folder refuses."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
import yaml
from helpers import column_mask, randn_complex, smooth_maps
from torch import Tensor, nn

from fastmri_ufloss.data import MoDLSample
from fastmri_ufloss.export import export_model, load_pretrained
from fastmri_ufloss.models import PatchFeatureNet
from fastmri_ufloss.pl_modules import (
    JointModule,
    MoDLModule,
    RecNetModule,
    RefinementModule,
    UnetModule,
    VarNetModule,
    load_reconstruction,
)

SMALL = {"discriminator_chans": 2, "num_strided": 2}
BASE = {"num_unrolls": 2, "chans": 2, "num_layers": 2, "num_cg_iterations": 2}
KINDS: dict[str, Any] = {
    "MoDLModule": lambda: MoDLModule(**BASE),
    "RecNetModule": lambda: RecNetModule(num_blocks=1, chans=4, data_consistency="cg"),
    "VarNetModule": lambda: VarNetModule(num_cascades=1, pools=1, chans=2, sens_pools=1, sens_chans=2),
    "UnetModule": lambda: UnetModule(chans=2, num_pool_layers=1),
    "RefinementModule": lambda: RefinementModule(MoDLModule(**BASE), refinement_chans=2, **SMALL),
    "JointModule": lambda: JointModule(RecNetModule(num_blocks=1, chans=4, data_consistency="cg"), **SMALL),
}


def make_run(folder: Path, kind: str) -> nn.Module:
    """A run of an untrained network whose weights are random, also those that begin at 0."""
    torch.manual_seed(3)
    module: nn.Module = KINDS[kind]()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    trainer = pl.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, barebones=True)
    trainer.strategy.connect(module)
    trainer.save_checkpoint(folder / "checkpoints" / "last.ckpt")
    flags = {"mask_type": "random", "accelerations": [4], "data_path": "/home/me/data", "loss": ["l2=1"]}
    (folder / "config.yaml").write_text(yaml.safe_dump(flags))
    return module.eval()


def images_of(module: nn.Module) -> Tensor:
    """What a network gives for a fixed input."""
    kspace = torch.view_as_real(randn_complex(1, 3, 20, 24, seed=5)) * 1e-4
    mask = column_mask(1, 24)
    if isinstance(module, UnetModule):
        return module(kspace[..., 0][:, 0])
    if isinstance(module, VarNetModule):
        return module(kspace * mask, mask, 8)
    fields = dict.fromkeys(MoDLSample._fields)
    batch = MoDLSample(**{**fields, "masked_kspace": kspace * mask, "mask": mask, "num_low_frequencies": 8})
    maps = smooth_maps(1, 3, 20, 24)
    batch = batch._replace(sens_maps=maps, scale=torch.tensor([1e-4]), reference=torch.ones(1, 20, 24) + 0j)
    return module.reconstruct(batch).image  # type: ignore[operator, no-any-return]


@pytest.mark.parametrize("kind", KINDS)
def test_a_network_comes_back_bit_for_bit(kind: str, tmp_path: Path) -> None:
    module = make_run(tmp_path / "run", kind)
    with torch.no_grad():
        expected = images_of(module)
        card = export_model(tmp_path / "run", tmp_path / "folder", license_name="MIT", data="three hearts")
        shutil.rmtree(tmp_path / "run")
        loaded = load_pretrained(tmp_path / "folder")
        assert type(loaded) is type(module) and not loaded.training
        torch.testing.assert_close(images_of(loaded), expected, rtol=0, atol=0)
    text = card.read_text(encoding="utf-8")
    head = yaml.safe_load(text.split("---")[1])
    assert head["license"] == "mit" and "mri" in head["tags"]
    for part in ("three hearts", "mask_type random, accelerations 4, loss l2=1", kind, "no test with a reference"):
        assert part in text
    files = sorted(path.name for path in (tmp_path / "folder").iterdir())
    assert files == ["README.md", "config.yaml", "model.safetensors"]
    assert not any("/home/me" in (tmp_path / "folder" / name).read_text() for name in files[:2])


def test_a_feature_network_comes_back_frozen(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = PatchFeatureNet(1, architecture="narrow", width=4, patch_size=40, training_data="five knees").eval()
    net.save(tmp_path / "run" / "feature_net.safetensors")
    patches = torch.rand(2, 1, 40, 40)
    for source in (tmp_path / "run", tmp_path / "run" / "feature_net.safetensors"):
        export_model(source, tmp_path / "folder")
        loaded = load_pretrained(tmp_path / "folder")
        assert isinstance(loaded, PatchFeatureNet) and loaded.training_data == "five knees"
        torch.testing.assert_close(loaded(patches), net(patches), rtol=0, atol=0)
        assert not any(parameter.requires_grad for parameter in loaded.parameters())


def test_the_best_checkpoint_is_taken_as_in_the_run_of_its_own_test(tmp_path: Path) -> None:
    for kind in ("MoDLModule", "RefinementModule"):
        run = tmp_path / kind
        make_run(run, kind)
        last = run / "checkpoints" / "last.ckpt"
        content = torch.load(last, weights_only=True)
        content["state_dict"] = {name: torch.zeros_like(value) for name, value in content["state_dict"].items()}
        torch.save(content, run / "checkpoints" / "best.ckpt")
        export_model(run, tmp_path / f"{kind} out")
        is_best = all(not parameter.any() for parameter in load_pretrained(tmp_path / f"{kind} out").parameters())
        assert is_best == (kind == "MoDLModule")
    export_model(last, tmp_path / "out")  # a checkpoint by its own name
    assert type(load_pretrained(tmp_path / "out")) is RefinementModule


def test_the_card_has_the_scores_with_intervals(tmp_path: Path) -> None:
    make_run(tmp_path, "MoDLModule")
    volumes = [
        {"volume": f"{n}.h5", "method": method, "SSIM (RSS)": value + 0.01 * n, "PSNR (RSS)": None}
        for n in range(5)
        for method, value in (("zero-filled", 0.5), ("MoDL", 0.9))
    ]
    (tmp_path / "scores.json").write_text(json.dumps({"volumes": volumes}))
    text = export_model(tmp_path, tmp_path / "out").read_text(encoding="utf-8")
    assert "| method | SSIM (RSS) | volumes |" in text
    assert "| MoDL | 0.92 (0.908 to 0.932) | 5 |" in text
    (tmp_path / "scores.json").write_text("{}")
    with pytest.raises(ValueError, match=r"scores\.json must be the scores of a run"):
        export_model(tmp_path, tmp_path / "out")


def test_what_was_tampered_with_is_refused(tmp_path: Path) -> None:
    make_run(tmp_path / "run", "MoDLModule")
    folder = tmp_path / "folder"
    export_model(tmp_path / "run", folder)
    weights, config = folder / "model.safetensors", folder / "config.yaml"
    good, settings = weights.read_bytes(), yaml.safe_load(config.read_text())

    def refused(match: str, **changes: Any) -> None:
        config.write_text(yaml.safe_dump({**settings, **changes}))
        with pytest.raises(ValueError, match=match):
            load_pretrained(folder)

    refused("format 1 or older: update fastmri-ufloss, got 2", format_version=2)
    refused("kind in .* must be one of RecNetModule, MoDLModule, .*, got 'posix", kind="posix.system")
    refused("settings in .* must be of type dict, got None", settings=None)
    refused("settings that are not of MoDLModule", settings={**settings["settings"], "colour": 1})
    refused(r"does not fit the settings: modl.*got None", settings={**settings["settings"], "num_unrolls": 3})
    refused("must have the hash in config.yaml", sha256="0" * 64)
    config.write_text("{")
    with pytest.raises(ValueError, match="must be YAML"):
        load_pretrained(folder)
    config.write_text(yaml.safe_dump(settings))
    weights.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    with pytest.raises(ValueError, match=r"must have the hash in config\.yaml: one of the two was changed"):
        load_pretrained(folder)
    weights.unlink()
    with pytest.raises(FileNotFoundError, match=r"no model\.safetensors in"):
        load_pretrained(folder)


def test_what_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        FileNotFoundError, match="folder that export_model wrote; a repository of the hub is hf:OWNER"
    ):
        load_pretrained("someone/modl")  # nothing is downloaded without the prefix
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ImportError, match=r"hf:someone/modl needs huggingface_hub .*fastmri-ufloss\[hub\]"):
        load_pretrained("hf:someone/modl")
    (tmp_path / "empty").mkdir()
    for run, message in ((tmp_path / "nowhere", "no run and no checkpoint"), (tmp_path / "empty", "no checkpoints")):
        with pytest.raises(FileNotFoundError, match=message):
            export_model(run, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_name_of_the_hub_is_downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_run(tmp_path / "run", "UnetModule")
    export_model(tmp_path / "run", tmp_path / "folder")
    asked = []

    class Hub:
        @staticmethod
        def snapshot_download(name: str, allow_patterns: list[str]) -> str:
            asked.append((name, sorted(allow_patterns)))
            return str(tmp_path / "folder")

    monkeypatch.setitem(sys.modules, "huggingface_hub", Hub)  # type: ignore[arg-type]
    assert isinstance(load_pretrained("hf:someone/unet"), UnetModule)
    assert asked == [("someone/unet", ["README.md", "config.yaml", "model.safetensors"])]


def test_the_command(tmp_path: Path) -> None:
    make_run(tmp_path / "run", "MoDLModule")
    command = [sys.executable, "-m", "fastmri_ufloss.export"]
    for run, code, printed in (
        ("run", 0, "Card: folder/README.md"),
        ("nowhere", 1, "error: no run and no checkpoint"),
    ):
        line = [*command, run, "--output_path", "folder", "--license", "cc-by-4.0"]
        result = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, timeout=120)
        assert result.returncode == code and printed in result.stdout + result.stderr
        assert "Traceback" not in result.stderr
    module, last = load_pretrained(tmp_path / "folder"), tmp_path / "run" / "checkpoints" / "last.ckpt"
    for name, value in load_reconstruction(last).state_dict().items():
        torch.testing.assert_close(module.state_dict()[name], value, rtol=0, atol=0)
