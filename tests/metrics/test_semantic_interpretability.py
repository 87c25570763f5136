"""Run as a script, this file is two processes that share the slices, see `main`."""

import math
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor, nn

from fastmri_ufloss.metrics import SegmentedImages, SemanticInterpretability, volume_id
from fastmri_ufloss.metrics.semantic_interpretability import dice_of_classes

Slice = tuple[str, int, Tensor, Tensor, Tensor]  # volume, number, output, target, segmentation


def read(images: Tensor) -> Tensor:
    """A segmenter that takes an intensity for the class: tests paint what it finds."""
    return images[:, 0].round().long()


def painted(pixels: Mapping[int, Sequence[int]]) -> Tensor:
    """(2, 4), with the class number at the given pixels."""
    image = torch.zeros(8, dtype=torch.int64)
    for number, where in pixels.items():
        image[list(where)] = number
    return image.reshape(2, 4)


def one_slice(name: str, number: int, output: Any, target: Any, true: Any) -> Slice:
    output, target, true = (painted(x if isinstance(x, dict) else {1: x}) for x in (output, target, true))
    return name, number, output.float(), target.float(), true


# Dice on targets 1, 2/3, 1/2, on outputs 1/2, 0, 1; the class is not in the last image
SCRIPT = [
    one_slice("a.h5", 0, [1, 2], [0, 1], [0, 1]),
    one_slice("a.h5", 1, [], [0, 1], [0, 1, 2, 3]),
    one_slice("b.h5", 0, [5], [5, 6, 7], [5]),
    one_slice("b.h5", 1, [2], [1], []),
]
# class 2 is in the first two images: Dice on targets 1 and 2/3, on outputs 1 and 0
TWO_CLASSES = [
    one_slice("a.h5", 0, {1: [1, 2], 2: [7]}, {1: [0, 1], 2: [7]}, {1: [0, 1], 2: [7]}),
    one_slice("a.h5", 1, [], {1: [0, 1], 2: [6]}, {1: [0, 1, 2, 3], 2: [6, 7]}),
    *SCRIPT[2:],
]


def random_slices(num_classes: int = 3, seed: int = 0) -> list[Slice]:
    """Nine slices of four volumes; what is found differs from the truth, more so on outputs."""
    generator = torch.Generator().manual_seed(seed)
    slices = []
    for name, count in {"a.h5": 3, "b.h5": 1, "c.h5": 4, "d.h5": 1}.items():
        for number in range(count):
            true = torch.randint(0, num_classes, (6, 5), generator=generator)
            noise = torch.randint(0, num_classes, (2, 6, 5), generator=generator)
            wrong = torch.rand(2, 6, 5, generator=generator) < torch.tensor([0.5, 0.2]).reshape(2, 1, 1)
            output, target = torch.where(wrong, noise, true).float()
            slices.append((name, number, output, target, true))
    return slices


def batch(slices: Sequence[Slice]) -> dict[str, Any]:
    fname, slice_num, output, target, true = zip(*slices, strict=True)
    images = {"output": torch.stack(output), "target": torch.stack(target), "segmentation": torch.stack(true)}
    return {**images, "fname": list(fname), "slice_num": torch.tensor(slice_num)}


def fill(
    slices: Sequence[Slice],
    num_classes: int = 3,
    batch_size: int = 1,
    segmenter: Callable[..., Any] = read,
    **options: Any,
) -> SemanticInterpretability:
    metric = SemanticInterpretability(segmenter, num_classes=num_classes, **options)
    for start in range(0, len(slices), batch_size):
        metric.update(**batch(slices[start : start + batch_size]))
    return metric


def everything(metric: SemanticInterpretability) -> tuple[Any, ...]:
    images = metric.images()
    return (
        float(metric.compute()),
        images.scores(),
        metric.per_volume(),
        images.segmenter_dice(),
        images.interval(),
    )


def dice(found: np.ndarray, true: np.ndarray) -> float:
    return float(2 * np.sum(found & true) / (np.sum(found) + np.sum(true)))


def test_scripted_example_is_as_worked_out_by_hand() -> None:
    metric = fill(SCRIPT, num_classes=2)
    assert metric.images().segmenter_dice() == pytest.approx({1: 13 / 18})
    assert metric.compute().dtype == torch.float64 and metric.compute().ndim == 0
    assert float(metric.compute()) == pytest.approx(9 / 13)
    assert metric.images().scores() == pytest.approx({1: 9 / 13})
    assert metric.per_volume() == pytest.approx({volume_id("a.h5"): 9 / 26, volume_id("b.h5"): 18 / 13})


def test_classes_have_values_of_their_own_and_a_mean() -> None:
    metric = fill(TWO_CLASSES)
    assert metric.images().segmenter_dice() == pytest.approx({1: 13 / 18, 2: 5 / 6})
    assert metric.images().scores() == pytest.approx({1: 9 / 13, 2: 3 / 5})
    assert float(metric.compute()) == pytest.approx((9 / 13 + 3 / 5) / 2)
    # volume b lacks class 2, and has the value of class 1 alone
    expected = {volume_id("a.h5"): (9 / 26 + 3 / 5) / 2, volume_id("b.h5"): 18 / 13}
    assert metric.per_volume() == pytest.approx(expected)
    second = fill(TWO_CLASSES, classes=[2])
    assert second.images().scores() == pytest.approx({2: 3 / 5}) and list(second.images().segmenter_dice()) == [2]
    assert float(second.compute()) == pytest.approx(3 / 5)
    assert second.per_volume() == pytest.approx({volume_id("a.h5"): 3 / 5})


def test_agrees_with_numpy() -> None:
    slices = random_slices()
    ratios = {}
    for number in (1, 2):
        there = [s for s in slices if bool((s[4] == number).any())]
        outputs, targets = ([dice(s[i].numpy() == number, s[4].numpy() == number) for s in there] for i in (2, 3))
        ratios[number] = np.mean(outputs) / np.mean(targets)
    assert fill(slices).images().scores() == pytest.approx(ratios)
    assert float(fill(slices).compute()) == pytest.approx(np.mean(list(ratios.values())))


def test_agrees_with_monai() -> None:
    monai = pytest.importorskip("monai.metrics")
    slices = [*random_slices(), ("e.h5", 0, torch.ones(6, 5), torch.ones(6, 5), torch.ones(6, 5, dtype=torch.int64))]
    one_hot = nn.functional.one_hot
    found = []
    for i in (2, 3):
        metric = monai.DiceMetric(include_background=False, reduction="none", ignore_empty=True)
        for one in slices:
            maps = (one_hot(x.long(), 3).permute(2, 0, 1)[None] for x in (one[i], one[4]))
            metric(*maps)
        found.append(metric.aggregate().nanmean(dim=0))
    assert list(fill(slices).images().scores().values()) == pytest.approx((found[0] / found[1]).tolist(), rel=1e-6)
    assert list(fill(slices).images().segmenter_dice().values()) == pytest.approx(found[1].tolist(), rel=1e-6)


def test_equal_images_give_one_however_bad_the_segmenter() -> None:
    equal = [(name, number, target, target, true) for name, number, _, target, true in random_slices()]
    metric = fill(equal)
    assert all(0 < value < 0.9 for value in metric.images().segmenter_dice().values())
    assert float(metric.compute()) == 1 and set(metric.images().scores().values()) == {1}
    assert metric.images().interval() == pytest.approx((1, 1), abs=1e-12)
    per_volume = metric.per_volume().values()
    assert np.mean(list(per_volume)) == pytest.approx(1, abs=0.2) and len(set(per_volume)) == 4


def test_relative_to_a_perfect_segmenter_it_is_the_mean_dice() -> None:
    slices = [(name, number, output, true.float(), true) for name, number, output, _, true in random_slices(2)]
    values = [dice(output.numpy() == 1, true.numpy() == 1) for _, _, output, _, true in slices]
    metric = fill(slices, num_classes=2)
    assert metric.images().segmenter_dice() == {1: 1}
    assert float(metric.compute()) == pytest.approx(np.mean(values))
    counts = [sum(s[0] == name for s in slices) for name in ("a.h5", "b.h5", "c.h5", "d.h5")]
    per_volume = [metric.per_volume()[volume_id(name)] for name in ("a.h5", "b.h5", "c.h5", "d.h5")]
    assert np.average(per_volume, weights=counts) == pytest.approx(float(metric.compute()))


def test_images_without_the_class_change_nothing() -> None:
    expected = everything(fill(SCRIPT[:3], num_classes=2))
    for found in ([], [0, 3, 5]):
        others = [one_slice("a.h5", 7, found, [1, 2], []), one_slice("empty.h5", 0, [1], found, [])]
        np.testing.assert_equal(everything(fill([*others, *SCRIPT[:3]], num_classes=2)), expected)


def test_order_batches_and_repetition_do_not_matter() -> None:
    slices = random_slices()
    expected = everything(fill(slices))
    assert everything(fill(slices[::-1], batch_size=2)) == expected  # to the last digit
    changed = [(name, number, target, target, true) for name, number, _, target, true in slices[:2]]
    assert everything(fill([*slices, *changed], batch_size=4)) == expected  # the first counts
    assert everything(fill(slices[1:])) != expected
    metric = SemanticInterpretability(read, num_classes=3)
    with_axis = batch(slices)
    metric.update(**{**with_axis, "output": with_axis["output"][:, None], "target": with_axis["target"][:, None]})
    assert everything(metric) == expected
    metric.reset()
    assert metric.per_volume() == {}


def test_complex_images_count_by_their_magnitude() -> None:
    slices = random_slices()
    turned = [(*one[:2], 1j * one[2], -(1 + 0j) * one[3], one[4]) for one in slices]
    assert everything(fill(turned)) == everything(fill(slices))
    seen = []
    doubles = [(*one[:2], one[2].double(), one[3].half(), one[4].to(torch.uint8)) for one in slices]
    fill(doubles, segmenter=lambda images: (seen.append(images.dtype), read(images))[1])
    assert set(seen) == {torch.float32}


def by_id(subjects: Mapping[str, str]) -> dict[int, str]:
    return {volume_id(name): subject for name, subject in subjects.items()}


def sums_by_subject(slices: Sequence[Slice], subjects: Mapping[str, str]) -> list[np.ndarray]:
    """Dice on outputs and on targets of class 1, the sums over the images of each subject."""
    sums: dict[str, list[float]] = {}
    for name, _, output, target, true in sorted(slices, key=lambda s: volume_id(s[0])):
        values = sums.setdefault(subjects.get(name, name), [0.0, 0.0])
        for i, found in enumerate((output, target)):
            values[i] += dice(found.numpy() == 1, true.numpy() == 1)
    return list(np.array(list(sums.values())).T)


@pytest.mark.parametrize("subjects", [{}, {"a.h5": "x", "c.h5": "x", "not here.h5": "y"}])
def test_interval_is_scipys_bootstrap_of_a_ratio_over_subjects(subjects: dict[str, str]) -> None:
    slices = random_slices(2)
    metric = fill(slices, num_classes=2)
    found = stats.bootstrap(
        sums_by_subject(slices, subjects), lambda o, t, axis: o.sum(axis) / t.sum(axis), paired=True, vectorized=True,
        n_resamples=2000, confidence_level=0.95, random_state=np.random.default_rng(0),
    )  # fmt: skip
    low, high = metric.images().interval(by_id(subjects))
    assert (low, high) == pytest.approx(tuple(found.confidence_interval), rel=1e-9)
    assert low < float(metric.compute()) < high


def test_interval_depends_on_what_the_subjects_are() -> None:
    images = fill(random_slices(2), num_classes=2).images()
    assert images.interval(by_id({"a.h5": "x", "c.h5": "x"})) != images.interval()


def test_volumes_of_one_subject_are_drawn_together() -> None:
    metric = fill(SCRIPT, num_classes=2)
    low, high = metric.images().interval()
    assert low < float(metric.compute()) < high
    for subjects in ({"a.h5": "x", "b.h5": "x"}, {"a.h5": "b", "b.h5": "b"}):
        assert all(math.isnan(end) for end in metric.images().interval(by_id(subjects)))


def test_interval_where_a_subject_alone_has_a_class() -> None:
    # of volume a the classes have 0.5 / (5 / 3) and 3 / 5, b has class 1 alone with 1 / 0.5: a resample without a is
    # 2, one of a alone is the mean of both, and a class without a value does not make the others nan
    assert fill(TWO_CLASSES).images().interval() == pytest.approx(((0.3 + 0.6) / 2, 2))


def test_precision_of_the_training_and_gradients_end_at_the_segmenter() -> None:
    seen = []

    def segmenter(images: Tensor) -> Tensor:
        seen.append((torch.is_autocast_enabled("cpu"), torch.is_grad_enabled()))
        return read(images)

    metric = SemanticInterpretability(segmenter, num_classes=3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        metric(**batch(random_slices()))  # a call, which torchmetrics may give gradients
    assert set(seen) == {(False, False)}


class SmallNet(nn.Module):
    """A segmenter with a batch norm that would notice training mode."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.norm = nn.Conv2d(1, 3, 3, padding=1), nn.BatchNorm2d(3)

    def forward(self, images: Tensor) -> Tensor:
        return self.norm(self.conv(images)).argmax(dim=1)


def test_network_is_frozen_and_no_part_of_the_metric() -> None:
    net = SmallNet().train()
    holder = nn.ModuleDict({"metric": fill(random_slices(), segmenter=net), "loss": nn.Linear(2, 2)})
    before = {name: value.clone() for name, value in net.state_dict().items()}
    holder.train()
    net.train()  # whatever the owner does
    images = batch(random_slices())
    images["output"].requires_grad_()
    value = holder["metric"](**images)
    assert not value.requires_grad and not net.training and not any(p.requires_grad for p in net.parameters())
    torch.testing.assert_close(dict(net.state_dict()), before, atol=0, rtol=0)
    assert set(holder.state_dict()) == {"loss.weight", "loss.bias"}
    assert {name for name, p in holder.named_parameters() if p.requires_grad} == {"loss.weight", "loss.bias"}
    holder.load_state_dict(holder.state_dict())
    meta = SemanticInterpretability(net, num_classes=3).to("meta")  # a device that every machine has
    with pytest.raises((RuntimeError, NotImplementedError)):
        meta.update(**images)
    for state in ("output_dice_1", "output_dice_2", "target_dice_1", "target_dice_2"):  # never images
        assert getattr(holder["metric"], state)[0].shape == (1,)


def test_the_network_goes_to_the_device_of_the_metric() -> None:
    net = SmallNet()
    SemanticInterpretability(net, num_classes=3).to("meta")
    assert all(p.device.type == "meta" for p in net.parameters())


def test_no_slice_gives_nan() -> None:
    metric = SemanticInterpretability(read, num_classes=3)
    with pytest.warns(UserWarning, match="before the ``update``"):
        assert metric.compute().isnan()
    assert metric.per_volume() == {} and all(math.isnan(end) for end in metric.images().interval())
    for values in (metric.images().scores(), metric.images().segmenter_dice()):
        assert list(values) == [1, 2] and all(math.isnan(value) for value in values.values())


VALUES: list[Callable[[SemanticInterpretability], Any]] = [
    lambda metric: metric.compute(),
    lambda metric: metric.per_volume(),
    lambda metric: metric.images().segmenter_dice(),
    lambda metric: metric.images().scores(),
    lambda metric: metric.images().per_image(),
    lambda metric: metric.images().interval(),
]


@pytest.mark.parametrize("value", VALUES)
def test_what_cannot_be_scored_is_said(value: Callable[[SemanticInterpretability], Any]) -> None:
    with pytest.raises(ValueError, match="class 2 is in none of the 4 images"):
        value(fill(SCRIPT))
    value(fill(SCRIPT, classes=[1]))
    blind = [(*one[:2], one[4].float(), torch.zeros(2, 4), one[4]) for one in SCRIPT]
    with pytest.raises(ValueError, match="segmenter must find class 1 on the targets, got a Dice of 0"):
        value(fill(blind, num_classes=2))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"target": torch.ones(2, 6, 4)}, "target must have the shape of output"),
        ({"output": torch.ones(6, 5), "target": torch.ones(6, 5)}, r"output must have shape .*got \(6, 5\)"),
        ({"segmentation": torch.ones(2, 5, 5, dtype=torch.int64)}, r"segmentation must have the shape .*\(2, 5, 5\)"),
        ({"segmentation": torch.ones(2, 6, 5)}, "segmentation must have an integer dtype, got torch.float32"),
        ({"segmentation": torch.full((2, 6, 5), 3)}, r"segmentation must be in 0 .. 2, got 3 .. 3"),
        ({"segmentation": torch.full((2, 6, 5), -1)}, r"segmentation must be in 0 .. 2, got -1 .. -1"),
        ({"output": torch.full((2, 6, 5), torch.nan)}, "output must be finite, got .* in a.h5"),
        ({"target": torch.full((2, 6, 5), torch.inf)}, "target must be finite"),
        ({"fname": ["a.h5"]}, "fname must hold the 2 names"),
        ({"fname": "ab"}, "fname must hold the 2 names"),
        ({"slice_num": torch.tensor([1.0, 2.0])}, "slice_num must hold 2 integers, got torch.float32"),
        ({"slice_num": [1]}, "slice_num must hold 2 integers"),
    ],
)  # fmt: skip
def test_bad_input_is_named_and_not_counted(change: dict[str, Any], message: str) -> None:
    metric = fill(random_slices())
    expected = everything(metric)
    with pytest.raises(ValueError, match=message):
        metric.update(**{**batch(random_slices()[:2]), **change})
    assert everything(metric) == expected


@pytest.mark.parametrize(
    ("segmenter", "message"),
    [
        (lambda images: images.round().long(), r"of shape \(1, 6, 5\), got \(1, 1, 6, 5\)"),
        (lambda images: images[:, 0], "integer dtype, got torch.float32"),
        (lambda images: read(images) == 1, "integer dtype, got torch.bool"),
        (lambda images: 2 * read(images), r"segmenter gives must be in 0 .. 2, got 0 .. 4"),
        (lambda images: read(images).numpy(), "got ndarray"),
    ],
)
def test_what_a_segmenter_gives_is_checked(segmenter: Callable[..., Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fill(random_slices(), segmenter=segmenter)


@pytest.mark.parametrize("options", [{"classes": []}, {"classes": [1, 1]}, {"classes": [0]}, {"classes": [3]}])
def test_bad_classes_are_named(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"classes must be different numbers in 1 .. 2, got \["):
        SemanticInterpretability(read, num_classes=3, **options)
    with pytest.raises(ValueError, match="num_classes must be at least 2, got 1"):
        SemanticInterpretability(read, num_classes=1)


def test_dice_of_classes() -> None:
    labels = torch.tensor([[[0, 1, 1, 2]], [[1, 1, 1, 1]]])
    true = torch.tensor([[[0, 1, 2, 2]], [[0, 0, 2, 2]]])
    dice = dice_of_classes(labels, true, 4)
    expected = torch.tensor([[2 / 3, 2 / 3, torch.nan], [torch.nan, 0, torch.nan]])
    torch.testing.assert_close(dice, expected, equal_nan=True)


# two classes beside the background; the second is in two of the images, none in the last
IMAGES = SegmentedImages(
    classes=[1, 2],
    volume=np.array(["a", "a", "b", "b"]),
    on_output=np.array([[0.5, 1.0], [0.4, np.nan], [0.9, 0.5], [np.nan, np.nan]]),
    on_target=np.array([[1.0, 1.0], [0.5, np.nan], [0.9, 0.6], [np.nan, np.nan]]),
)


def test_scores_of_images_volumes_and_all() -> None:
    first, second = 2.4 / 3, 1.6 / 2  # on the targets
    assert IMAGES.segmenter_dice() == pytest.approx({1: first, 2: second})
    assert IMAGES.scores() == pytest.approx({1: 0.6 / first, 2: 0.75 / second})
    assert IMAGES.per_volume() == pytest.approx(
        {"a": (0.45 / first + 1 / second) / 2, "b": (0.9 / first + 0.5 / second) / 2}
    )
    expected = [(0.5 / first + 1 / second) / 2, 0.4 / first, (0.9 / first + 0.5 / second) / 2, np.nan]
    np.testing.assert_allclose(IMAGES.per_image(), expected)
    only_second = SegmentedImages([2], IMAGES.volume, IMAGES.on_output[:, 1:], IMAGES.on_target[:, 1:])
    np.testing.assert_allclose(only_second.per_image(), [1 / second, np.nan, 0.5 / second, np.nan])


def test_interval_is_over_subjects() -> None:
    low, high = IMAGES.interval({"a": "x", "b": "y"})
    value = np.mean(list(IMAGES.scores().values()))
    assert low < value < high and (low, high) == IMAGES.interval()
    assert np.isnan(IMAGES.interval({"a": "x", "b": "x"})).all()


def test_random_numbers_of_the_interval_stay() -> None:
    metric = fill(random_slices())
    assert float(metric.compute()) == pytest.approx(0.7471528850261514, rel=1e-14)
    assert metric.images().interval() == pytest.approx((0.6924461742668031, 0.7917821707560029), rel=1e-12)


def share(rank: int, case: str) -> list[Slice]:
    slices = random_slices()
    if case == "one has nothing":
        return slices if rank else []
    return slices[:3] + slices[7:] if rank else slices[2:7]  # unequal, volume c on both, a slice of a as well


CASES = ("shared", "one has nothing")


def main(rank: int, folder: Path) -> None:
    """One of two processes, with its share of the slices."""
    wait = timedelta(seconds=60)
    meeting = f"file://{folder}/meeting"
    torch.distributed.init_process_group("gloo", init_method=meeting, rank=rank, world_size=2, timeout=wait)
    found = {case: everything(fill(share(rank, case), batch_size=2)) for case in CASES}
    metric = fill(share(rank, "shared")[:1])
    metric.images()  # afterwards each goes on with its own slices
    for one in share(rank, "shared")[1:]:
        metric.update(**batch([one]))
    found["in two parts"] = everything(metric)
    torch.save(found, folder / f"rank{rank}.pt")
    torch.distributed.destroy_process_group()


def test_two_processes_give_what_one_gives(tmp_path: Path) -> None:
    expected = everything(fill(random_slices()))
    # scikit-learn turns off what OpenMP needs to survive a fork
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "KMP_INIT_AT_FORK": "TRUE"}
    subprocess.run([sys.executable, __file__, str(tmp_path)], env=environment, check=True, timeout=120)
    for rank in "01":
        found = torch.load(tmp_path / f"rank{rank}.pt", weights_only=True)
        assert set(found) == {*CASES, "in two parts"}
        assert all(values == expected for values in found.values())  # to the last digit


if __name__ == "__main__":
    torch.set_num_threads(1)
    # forked, so that both import once, and from a script, which has no threads yet
    torch.multiprocessing.start_processes(main, args=(Path(sys.argv[1]),), nprocs=2, start_method="fork")
