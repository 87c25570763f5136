"""Scores of one volume of all methods, against numbers made by hand."""

import json
from pathlib import Path
from typing import Any

import fastmri.evaluate
import h5py
import numpy as np
import pytest
import torch
from fastmri.data.transforms import center_crop
from report_data import SIZE, columns, make_acquired, make_folders, read, write, zero_filled
from torch import nn

from fastmri_ufloss.losses import ufloss_per_image
from fastmri_ufloss.metrics.volumes import sharpness
from fastmri_ufloss.models import PatchFeatureNet
from fastmri_ufloss.report import scoring
from fastmri_ufloss.report.acquisitions import AcquiredVolume, differing_masks
from fastmri_ufloss.report.reconstructions import Reconstructions, VolumeFiles
from fastmri_ufloss.report.scoring import COIL_COMBINED, FeatureNetFile, ScoreSettings, score_files
from fastmri_ufloss.simulation.volume_file import fft2c


class Threshold(nn.Module):
    """A segmenter: class 1 from 0.7e-4 on."""

    num_classes = 2

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return (images[:, 0] >= 0.7e-4).long()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    make_folders(tmp_path)
    return tmp_path


def files_of(
    root: Path, name: str = "b.h5", methods: tuple[str, ...] = ("noisy", "dim"), **options: Any
) -> VolumeFiles:
    folders = {method: root / method for method in methods}
    data = Reconstructions(folders, {"RSS": root / "reference"}, **options)
    return next(files for files in data.volumes if files.name == name)


def score(files: VolumeFiles, *references: str, **options: Any) -> dict[str, Any]:
    found = score_files(files, ScoreSettings(references or ("RSS",), **options))
    return json.loads(json.dumps(found))  # plain values


def of_method(found: dict[str, Any], method: str, kind: str = "slices") -> list[dict[str, Any]]:
    return [row for row in found[kind] if row["method"] == method]


def residuals(found: dict[str, Any]) -> list[float]:
    """Of the volumes of the methods."""
    return [of_method(found, method, "volumes")[0]["residual"] for method in ("true", "zero")]


def test_volume_and_slices_have_their_scores(root: Path) -> None:
    found = score(files_of(root))
    target, output = read(root / "reference" / "b.h5"), read(root / "noisy" / "b.h5")
    (volume,) = of_method(found, "noisy", "volumes")
    assert volume["slices"] == 2
    assert volume["SSIM (RSS)"] == fastmri.evaluate.ssim(target, output).item()
    assert volume["PSNR (RSS)"] == float(fastmri.evaluate.psnr(target, output))
    slices = of_method(found, "noisy")
    assert [row["slice"] for row in slices] == [0, 1]
    assert np.mean([row["SSIM (RSS)"] for row in slices]) == pytest.approx(volume["SSIM (RSS)"])
    assert [row["sharpness"] for row in slices] == [sharpness(image) for image in output]
    assert volume["sharpness"] == pytest.approx(np.mean([sharpness(image) for image in output]))
    assert found["excluded"] == found["constant"] == found["differing_masks"] == []
    expected = np.mean([sharpness(image) for image in target])
    assert of_method(found, "RSS", "volumes") == [
        {"slices": 2, "method": "RSS", "sharpness": pytest.approx(expected)}
    ]


def test_slices_that_are_not_finite_are_left_out_for_all(root: Path) -> None:
    for method, value in (("noisy", np.nan), ("dim", np.inf)):
        images = read(root / method / "b.h5")
        images[1, 3, 3] = value
        write(root / method / "b.h5", images)
    found = score(files_of(root))
    assert [(row["slice"], row["source"]) for row in found["excluded"]] == [(1, "noisy"), (1, "dim")]
    assert {row["slice"] for row in found["slices"]} == {0}
    (volume,) = of_method(found, "dim", "volumes")
    pair = [read(root / folder / "b.h5")[:1] for folder in ("reference", "dim")]
    assert volume["slices"] == 1 and volume["PSNR (RSS)"] == float(fastmri.evaluate.psnr(*pair))
    # and a volume that has none left
    images = read(root / "reference" / "b.h5")
    images[0, 0, 0] = np.nan
    write(root / "reference" / "b.h5", images)
    found = score(files_of(root))
    assert found["volumes"] == found["slices"] == []
    assert found["excluded"][-1] == {"slice": None, "source": "all", "why": "no slice is left"}


def test_constant_images(root: Path) -> None:
    images = read(root / "reference" / "b.h5")
    images[0] = 0
    write(root / "reference" / "b.h5", images)
    write(root / "dim" / "b.h5", np.full_like(images, 1e-5))
    found = score(files_of(root))
    assert found["constant"] == [["RSS", 0], ["dim", 0], ["dim", 1]]
    first, second = of_method(found, "noisy")
    assert first["SSIM (RSS)"] is first["NRMSE (RSS)"] is None and second["SSIM (RSS)"] > 0
    (volume,) = of_method(found, "noisy", "volumes")
    assert volume["SSIM (RSS)"] == fastmri.evaluate.ssim(images, read(root / "noisy" / "b.h5")).item()
    write(root / "reference" / "b.h5", np.zeros_like(images))
    found = score(files_of(root))
    assert found["volumes"] == [] and found["excluded"][-1]["why"] == "no value is above 0"


def test_ufloss_of_magnitudes(root: Path) -> None:
    net = PatchFeatureNet(1, patch_size=32).eval()
    net.save(root / "net.safetensors")
    nets = (FeatureNetFile(root / "net.safetensors", 1), FeatureNetFile(root / "net.safetensors", 1, "own", True))
    found = score(files_of(root), feature_nets=nets, stride=4)
    pair = [torch.from_numpy(read(root / folder / "b.h5"))[:, None] for folder in ("noisy", "reference")]
    with torch.no_grad():
        expected = ufloss_per_image(net, *pair, stride=4)
    values = [row["UFLoss"] for row in of_method(found, "noisy")]
    assert values == pytest.approx(expected.tolist(), rel=1e-4)
    (volume,) = of_method(found, "noisy", "volumes")
    assert volume["UFLoss"] == volume["UFLoss (own, trained on)"] == pytest.approx(float(expected.mean()), rel=1e-4)
    other = score(files_of(root), feature_nets=nets[:1], stride=8)
    assert of_method(other, "noisy", "volumes")[0]["UFLoss"] != volume["UFLoss"]


def test_dice_and_picture(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scoring, "load_segmenter", lambda path: Threshold())
    options = {"segmenter": root / "val" / "a.h5"}
    files = files_of(root, "a.h5", segmentations=root / "val")
    found = score(files, **options, pictures=root / "pictures")
    masks = read(root / "val" / "a.h5", "segmentation") > 0

    def dice(folder: str) -> float:
        labels = read(root / folder / "a.h5")[1] >= 0.7e-4
        return 2 * (labels & masks[1]).sum() / (labels.sum() + masks[1].sum())

    first, second = of_method(found, "noisy")
    assert first["Dice 1"] is None and second["Dice 1"] == pytest.approx(dice("noisy"), rel=1e-6)
    (volume,) = of_method(found, "noisy", "volumes")
    assert volume["Dice 1"] == second["Dice 1"]
    of_reference = [row["Dice 1"] for row in of_method(found, "RSS")]
    assert of_reference == [None, pytest.approx(dice("reference"), rel=1e-6)]
    assert (root / "pictures" / "a.png").stat().st_size > 10_000
    write(root / "val" / "a.h5", read(root / "reference" / "a.h5"), segmentation=2 * masks.astype(np.uint8))
    with pytest.raises(ValueError, match=r"val/a.h5 must have the segmenter's classes 0 .. 1, got 0 .. 2"):
        score(files, **options)


def methods_of_samples(root: Path, name: str = "b.h5") -> tuple[np.ndarray, np.ndarray]:
    """The zero-filled image as a method, and the true one; fully sampled k-space; returns images and mask."""
    images, mask = make_acquired(root, name), columns()
    write(root / "true" / name, np.abs(images).astype(np.float32), mask=mask)
    write(root / "zero" / name, zero_filled(root / "kspace" / name, mask), mask=mask)
    write(root / "reference" / name, np.abs(images).astype(np.float32))
    for path in (root / "reference").iterdir():
        if path.name != name:
            path.unlink()
    return images, mask


def direct_residual(root: Path, magnitude: np.ndarray, mask: np.ndarray, number: int) -> float:
    """|U F S x - y| / |U y| in float64, the phase that of the coil-combined image."""
    one = AcquiredVolume(root / "kspace" / "b.h5", mask).read(number)
    assert one is not None
    kspace, maps = (torch.view_as_complex(x).numpy().astype(np.complex128) for x in (one.kspace, one.sens_maps))
    combined = one.image.numpy().astype(np.complex128)
    image = combined.copy()
    top = (SIZE - len(magnitude)) // 2
    inside = (slice(top, top + len(magnitude)),) * 2
    image[inside] = magnitude * np.exp(1j * np.angle(combined[inside]))
    error = mask * (fft2c(maps * image) - kspace)
    return float(np.linalg.norm(error) / np.linalg.norm(mask * kspace))


def test_residual_is_that_of_a_direct_computation(root: Path) -> None:
    _, mask = methods_of_samples(root)
    files = files_of(root, methods=("true", "zero"), kspace=root / "kspace")
    found = score(files, "RSS", COIL_COMBINED)
    for method in ("true", "zero"):
        images = read(root / method / "b.h5")
        expected = [direct_residual(root, image, mask, number) for number, image in enumerate(images)]
        assert [row["residual"] for row in of_method(found, method)] == pytest.approx(expected, rel=1e-4)
        (volume,) = of_method(found, method, "volumes")
        energy = [np.linalg.norm(mask * read(root / "kspace" / "b.h5", "kspace")[n]) ** 2 for n in (0, 1)]
        assert volume["residual"] == pytest.approx(np.sqrt(np.average(np.square(expected), weights=energy)), rel=1e-4)
    true, zero = residuals(found)
    assert true < zero
    assert of_method(found, COIL_COMBINED, "volumes")[0]["residual"] < true * 1.5
    # against the coil-combined reference, which is no file
    one = AcquiredVolume(root / "kspace" / "b.h5", mask).read(1)
    assert one is not None
    target, output = one.image.abs().numpy(), read(root / "zero" / "b.h5")[1]
    nrmse = np.linalg.norm(output - target) / np.linalg.norm(target)
    assert of_method(found, "zero")[1][f"NRMSE ({COIL_COMBINED})"] == pytest.approx(nrmse, rel=1e-5)


def test_what_is_cropped_is_compared_inside_alone(root: Path) -> None:
    _, mask = methods_of_samples(root)
    cropped = center_crop(read(root / "zero" / "b.h5"), (24, 24))
    write(root / "zero" / "b.h5", cropped, mask=mask)
    found = score(files_of(root, methods=("true", "zero"), kspace=root / "kspace"), "RSS", COIL_COMBINED)
    expected = direct_residual(root, cropped[1], mask, 1)
    assert of_method(found, "zero")[1]["residual"] == pytest.approx(expected, rel=1e-4)


def test_undersampled_kspace_has_a_residual_and_is_no_reference(root: Path) -> None:
    _, mask = methods_of_samples(root)
    make_acquired(root, "b.h5", mask=mask)
    files = files_of(root, methods=("true", "zero"), kspace=root / "kspace")
    found = score(files)
    true, zero = residuals(found)
    assert 0 < true < zero
    assert of_method(found, COIL_COMBINED, "volumes") == []
    with pytest.raises(ValueError, match="undersampled: there is no coil-combined reference"):
        score(files, "RSS", COIL_COMBINED)


def test_masks_of_methods_that_differ_are_told(root: Path) -> None:
    _, mask = methods_of_samples(root)
    files = files_of(root, methods=("true", "zero"), kspace=root / "kspace")
    same = score(files)
    assert same["differing_masks"] == []
    other = columns(every=4)
    write(root / "zero" / "b.h5", read(root / "zero" / "b.h5"), mask=other)
    found = score(files)
    assert found["differing_masks"] == ["zero"]
    # each is compared with its own samples
    assert residuals(found)[0] == residuals(same)[0]
    assert residuals(found)[1] != residuals(same)[1]
    assert score(files_of(root, methods=("true", "zero")))["differing_masks"] == ["zero"]  # without k-space, too
    # the folder of masks has the last word
    write(root / "masks" / "b.h5", np.ones(1), name="none", mask=mask)
    found = score(files_of(root, methods=("true", "zero"), kspace=root / "kspace", masks=root / "masks"))
    assert residuals(found)[1] == residuals(same)[1]
    assert found["differing_masks"] == ["zero"]


def test_masks_are_compared_where_something_was_acquired() -> None:
    lines = np.array([True, False, True])
    points = np.tile(lines, (2, 1))
    assert differing_masks({"a": lines, "b": points}) == []
    assert differing_masks({"a": lines, "b": lines[:2], "c": ~points}) == ["b", "c"]
    wide = np.array([True, False, True]) | np.array([False, True, False])
    acquired = np.tile([True, False, True], (2, 1))
    assert (
        differing_masks({"a": lines, "b": wide}) == ["b"] and differing_masks({"a": lines, "b": wide}, acquired) == []
    )


def test_without_a_mask_there_is_no_residual(root: Path) -> None:
    make_acquired(root, "b.h5")
    for name in ("a.h5", "c.h5"):
        (root / "reference" / name).unlink()
        for method in ("noisy", "dim"):
            (root / method / name).unlink()
    found = score(files_of(root, kspace=root / "kspace"), "RSS", COIL_COMBINED)
    assert all("residual" not in row for row in found["volumes"] + found["slices"])
    assert f"SSIM ({COIL_COMBINED})" in of_method(found, "noisy", "volumes")[0]


def test_kspace_that_is_not_finite_leaves_a_slice_out(root: Path) -> None:
    methods_of_samples(root)
    with h5py.File(root / "kspace" / "b.h5", "a") as file:
        file["kspace"][0, 0, 3, 3] = np.nan
    found = score(files_of(root, methods=("true", "zero"), kspace=root / "kspace"))
    assert found["excluded"] == [{"slice": 0, "source": "k-space", "why": "NaN or infinite values"}]
    assert {row["slice"] for row in found["slices"]} == {1}


def test_ufloss_of_complex_images_has_the_phase_of_the_reference(root: Path) -> None:
    _, mask = methods_of_samples(root)
    net = PatchFeatureNet(2, patch_size=32).eval()
    net.save(root / "net.safetensors")
    options = {"stride": 4}
    files = files_of(root, methods=("true", "zero"), kspace=root / "kspace")
    nets = (FeatureNetFile(root / "net.safetensors", 2),)
    found = score(files, "RSS", COIL_COMBINED, feature_nets=nets, **options)
    one = AcquiredVolume(root / "kspace" / "b.h5", mask).read(1)
    assert one is not None
    output = torch.polar(torch.from_numpy(read(root / "zero" / "b.h5")[1]), one.image.angle())
    with torch.no_grad():
        expected = float(ufloss_per_image(net, output[None, None], one.image[None, None], stride=4))
    assert of_method(found, "zero")[1]["UFLoss"] == pytest.approx(expected, rel=1e-4)
    with pytest.raises(ValueError, match="complex images, which need k-space for their phase"):
        score(files_of(root, methods=("true", "zero")), feature_nets=nets, **options)
