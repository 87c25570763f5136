"""The documentation's examples of losses in one's own run, word for word, on small data and networks."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from fastmri.data.transforms import VarNetDataTransform
from helpers import ROOT
from torch import nn
from torch.utils.data import DataLoader

from fastmri_ufloss.data import IndexedSliceDataset, MetadataIndex, create_mask_for_mask_type
from fastmri_ufloss.models import PatchFeatureNet
from fastmri_ufloss.pl_modules import VarNetModule
from fastmri_ufloss.simulation.simulate import simulate_kspace, write_volume

VARNET = {"num_cascades": 1, "pools": 2, "chans": 2, "sens_pools": 2, "sens_chans": 2}


def example(comment: str) -> str:
    """The code block of the README, or of the page on losses, that begins with a comment."""
    pages = (ROOT / page for page in ("README.md", "docs/losses.md"))
    blocks = "".join(page.read_text(encoding="utf-8") for page in pages).split("```")
    (block,) = [block for block in blocks if block.startswith(f"python\n# {comment}\n")]
    return block.removeprefix("python\n")


PAGES = [ROOT / "README.md", ROOT / "benchmarks" / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_files_that_a_page_links_to_exist(page: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)(?:#\w+)?\)", page.read_text(encoding="utf-8"))
    assert not [link for link in links if not link.startswith("http") and not (page.parent / link).exists()]


def test_the_readme_or_the_index_of_the_site_leads_to_every_page() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "](docs/index.md)" in text
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8").splitlines()
    pages = [page.relative_to(ROOT / "docs").with_suffix("") for page in sorted((ROOT / "docs").rglob("*.md"))]
    assert [str(page) for page in pages if str(page) not in ("index", *index)] == []


@pytest.fixture
def loader(tmp_path: Path) -> DataLoader:
    rng = np.random.default_rng(0)
    y, x = np.mgrid[-1:1:64j, -1:1:68j]
    images = (x**2 + y**2 < 0.7) * (1 + 0.3 * rng.random((2, 64, 68)))
    write_volume(tmp_path / "volumes" / "a.h5", 1e-4 * simulate_kspace(images, num_coils=3, seed=1))
    transform = VarNetDataTransform(create_mask_for_mask_type("random", [0.3], [2]))
    index = MetadataIndex(tmp_path / "index.json", challenge="multicoil")
    return DataLoader(IndexedSliceDataset(tmp_path / "volumes", "multicoil", index=index, transform=transform))


def test_fine_tuning_a_varnet_checkpoint(loader: DataLoader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    before = VarNetModule(**VARNET)
    options = {"accelerator": "cpu", "logger": False, "enable_progress_bar": False}
    trainer = pl.Trainer(max_epochs=1, **options)
    trainer.fit(before, loader, loader)
    trainer.save_checkpoint("varnet.ckpt")
    code = example("fine-tune a VarNet checkpoint")
    assert "max_epochs=10)" in code
    code = code.replace("max_epochs=10)", f"max_epochs=1, **{options!r})")
    names: dict[str, Any] = {"train_loader": loader, "val_loader": loader}
    exec(code, names)
    module = names["module"]
    assert module.hparams.lr == 1e-4
    start, end = before.varnet.state_dict(), module.varnet.state_dict()
    steps = torch.cat([(end[name] - start[name]).flatten() for name in start])
    assert 0 < float(steps.abs().max()) < 1e-3  # Adam's two steps of 1e-4 from where it was
    assert set(module.loss.last_terms) == {"ssim", "ufloss"}


def test_plain_loop(capsys: pytest.CaptureFixture[str]) -> None:
    generator = torch.Generator().manual_seed(0)
    target = 1e-4 * torch.rand(4, 1, 40, 44, generator=generator)
    batches = [(target[i : i + 2] * 0.5, target[i : i + 2], torch.full((2,), 1e-4)) for i in (0, 2)]
    model = nn.Conv2d(1, 1, 1, bias=False)
    nn.init.ones_(model.weight)
    names: dict[str, Any] = {
        "net": PatchFeatureNet(1, patch_size=32, num_features=8),
        "device": "cpu",
        "max_epochs": 4,
        "train_loader": batches,
        "model": model,
        "optimizer": torch.optim.SGD(model.parameters(), lr=0.05),
    }
    exec(example("a plain loop"), names)
    terms = [eval(line) for line in capsys.readouterr().out.splitlines()]
    assert len(terms) == 4 and set(terms[-1]) == {"l1", "dssim", "ufloss"}
    assert set(terms[0]) == {"l1", "dssim"}  # the ramp has not begun
    assert terms[-1]["l1"] < terms[0]["l1"] and 1 < float(model.weight.detach()) < 2.5
    assert names["loss"].current_weights["ufloss"] == pytest.approx(0.1 / 8)  # of the fourth epoch
