"""A segmentation network takes images of any size, and comes back from a checkpoint without Lightning."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from fastmri_ufloss.models import SegmentationNet, Segmenter, load_segmenter
from fastmri_ufloss.mri import image_scale

TINY = {"num_classes": 2, "chans": 4, "num_levels": 2, "num_res_units": 0}


def make_net(**options: Any) -> SegmentationNet:
    torch.manual_seed(0)
    return SegmentationNet(**{**TINY, **options})


@pytest.mark.parametrize("size", [(33, 46), (31, 32), (1, 3)])
@pytest.mark.parametrize("num_levels", [2, 4])
def test_images_of_any_size_are_padded_and_cropped_back(size: tuple[int, int], num_levels: int) -> None:
    net = make_net(num_levels=num_levels).eval()
    images = torch.rand(1, 1, *size) + 0.5
    logits = net(images)
    assert logits.shape == (1, 2, *size) and bool(logits.isfinite().all())
    # padding to the next size by hand, alike on both sides, is what the network does
    multiple = 2 ** (num_levels - 1)
    full = [max(-(-n // multiple), 2) * multiple for n in size]
    top, left = ((m - n) // 2 for m, n in zip(full, size, strict=True))
    padded = torch.zeros(1, 1, *full)
    padded[..., top : top + size[0], left : left + size[1]] = images
    with torch.no_grad():
        expected = net.unet(padded / image_scale(images))[..., top : top + size[0], left : left + size[1]]
    torch.testing.assert_close(logits, expected)


LOAD = """
import sys

import torch

from fastmri_ufloss.models import load_segmenter

torch.save(load_segmenter(sys.argv[1])(torch.load(sys.argv[2], weights_only=True)), sys.argv[3])
print(*(name for name in sys.modules if "lightning" in name))
"""


def test_a_checkpoint_of_lightning_is_read_without_it(tmp_path: Path) -> None:
    net, images = make_net(), torch.rand(2, 1, 24, 20)
    state = {**net.state_dict(prefix="segmentation_net."), "dice_ce.weight": torch.ones(2)}
    settings = {**TINY, "loss": "dice_ce", "lr": 2e-4, "augment": True}
    torch.save({"state_dict": state, "hyper_parameters": settings}, tmp_path / "last.ckpt")
    torch.save(images, tmp_path / "images.pt")
    paths = [str(tmp_path / name) for name in ("last.ckpt", "images.pt", "labels.pt")]
    done = subprocess.run([sys.executable, "-c", LOAD, *paths], check=True, capture_output=True, text=True)
    assert done.stdout.split() == []
    labels = torch.load(tmp_path / "labels.pt", weights_only=True)
    assert torch.equal(labels, Segmenter(net)(images)) and labels.dtype == torch.int64 and labels.shape == (2, 24, 20)


def test_checkpoints_that_are_none_of_a_segmentation_network(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    with pytest.raises(FileNotFoundError, match="no checkpoint"):
        load_segmenter(path)
    state = make_net().state_dict(prefix="segmentation_net.")
    for settings in ({}, {**TINY, "chans": 8}):
        torch.save({"state_dict": state, "hyper_parameters": settings}, path)
        with pytest.raises(ValueError, match=r"last\.ckpt does not fit its own settings"):
            load_segmenter(path)
    torch.save({"state_dict": {"unet.weight": torch.ones(1)}}, path)
    with pytest.raises(ValueError, match="a checkpoint of another model"):
        load_segmenter(path)
    torch.save({"epoch": 3}, path)
    with pytest.raises(ValueError, match="has no 'state_dict'"):
        load_segmenter(path)
    path.write_bytes(b"no checkpoint")
    with pytest.raises(ValueError, match=r"must be a file of torch\.save with plain values and tensors only"):
        load_segmenter(path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_classes": 1}, "num_classes must be at least 2, got 1"),
        ({"chans": 0}, "chans must be at least 1, got 0"),
        ({"num_levels": 1}, "num_levels must be at least 2, got 1"),
        ({"num_res_units": -1}, "num_res_units must be at least 0, got -1"),
    ],
)
def test_bad_settings(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_net(**options)


def test_bad_images_and_no_monai(monkeypatch: pytest.MonkeyPatch) -> None:
    net = make_net()
    for images in (torch.ones(2, 32, 32), torch.ones(2, 2, 32, 32), torch.ones(1, 1, 32, 32, dtype=torch.complex64)):
        with pytest.raises(ValueError, match=r"images must be real magnitudes \(batch, 1, rows, cols\), got torch"):
            Segmenter(net)(images)
    monkeypatch.setitem(sys.modules, "monai.networks.nets", None)
    with pytest.raises(ImportError, match=r"pip install 'fastmri-ufloss\[segment\]'"):
        make_net()
