import numpy as np
import pytest
from torch import Tensor

from fastmri_ufloss.metrics.method_scores import BATCH, MethodScores


def by_brightness(images: Tensor) -> Tensor:
    """Class 1 from 1 on, class 2 from 2 on."""
    assert len(images) <= BATCH
    return (images[:, 0] >= 1).long() + (images[:, 0] >= 2).long()


def volume(*, slices: int = 11, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Images whose brightness nearly tells the class; class 2 is in the first slices only."""
    generator = np.random.default_rng(seed)
    classes = generator.integers(0, 3, (slices, 16, 12))
    classes[4:][classes[4:] == 2] = 0
    return (classes + generator.uniform(-0.1, 1.1, classes.shape)).clip(0).astype(np.float32), classes


def dice(labels: np.ndarray, classes: np.ndarray, number: int) -> float:
    """The mean over slices that have the class."""
    pairs = [(a == number, b == number) for a, b in zip(labels, classes, strict=True) if (b == number).any()]
    return float(np.mean([2 * (a & b).sum() / (a.sum() + b.sum()) for a, b in pairs]))


def test_dice_of_each_class_and_what_the_segmenter_finds() -> None:
    scores = MethodScores(["half", "same"], segmenter=by_brightness, num_classes=3)
    assert list(scores.larger_is_better) == ["PSNR", "SSIM", "NRMSE", "Dice 1", "Dice 2", "SIS"]
    expected = []
    for seed, name in enumerate(("a", "b")):
        reference, classes = volume(seed=seed)
        outputs = {"half": reference * 0.9, "same": reference}
        labels = scores.add(name, reference, outputs, segmentation=classes)
        assert list(labels) == ["reference", "half", "same"]
        bright = reference * 0.9
        np.testing.assert_array_equal(labels["half"], (bright >= 1).astype(int) + (bright >= 2))
        expected.append([dice(labels["half"], classes, number) for number in (1, 2)])
        expected[-1] += [dice(labels["reference"], classes, number) for number in (1, 2)]
    rows = {(row["volume"], row["method"]): row for row in scores.rows()}
    on_references = scores.segmenter_dice()
    assert on_references == pytest.approx({n: np.mean([row[n + 1] for row in expected]) for n in (1, 2)})
    for name, row in zip(("a", "b"), expected, strict=True):
        found = rows[name, "half"]
        assert (found["Dice 1"], found["Dice 2"]) == pytest.approx(row[:2])
        assert found["SIS"] == pytest.approx(np.mean([row[n - 1] / on_references[n] for n in (1, 2)]))
        assert rows[name, "same"]["PSNR"] == float("inf") and rows[name, "same"]["NRMSE"] == 0
    assert scores.sis({})["same"] == (1, 1, 1)
    one, two = scores.sis({"a": "x", "b": "x"}), scores.sis({})
    assert np.isnan(one["half"][1:]).all() and np.isfinite(two["half"]).all()  # of one subject there is no interval


def test_a_volume_without_a_class_has_no_value_of_it() -> None:
    scores = MethodScores(["half"], segmenter=by_brightness, num_classes=3)
    reference, classes = volume()
    scores.add("a", reference, {"half": reference * 0.9}, segmentation=classes)
    scores.add("b", reference[4:], {"half": reference[4:] * 0.9}, segmentation=classes[4:])
    _, row = scores.rows()
    assert row["Dice 2"] is None and 0 < row["Dice 1"] < 1 and row["SIS"] > 0


def test_without_networks() -> None:
    scores = MethodScores(["half"])
    reference, _ = volume(slices=2)
    assert scores.add("a", reference, {"half": reference / 2}) == {}
    assert list(scores.larger_is_better) == ["PSNR", "SSIM", "NRMSE"]
    assert scores.rows()[0]["NRMSE"] == pytest.approx(0.5)
    assert scores.sis({}) == scores.segmenter_dice() == {}


def test_a_segmenter_needs_segmentations() -> None:
    scores = MethodScores(["half"], segmenter=by_brightness, num_classes=3)
    reference, _ = volume(slices=2)
    with pytest.raises(ValueError, match="segmentation must be given of each volume for a segmenter, got none of a"):
        scores.add("a", reference, {"half": reference / 2})
