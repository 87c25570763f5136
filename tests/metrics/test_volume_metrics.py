"""Run as a script, this file is two processes that share the slices, see `main`."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from datetime import timedelta
from pathlib import Path
from typing import Any

import fastmri.evaluate
import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from scipy.ndimage import convolve
from skimage.metrics import structural_similarity
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchmetrics import MetricCollection

from fastmri_ufloss.losses.ufloss import UFLoss, ufloss_per_image
from fastmri_ufloss.metrics import (
    DSSIM,
    HFEN,
    METRIC_NAMES,
    NRMSE,
    RelativeError,
    UFLossMetric,
    VolumeMetric,
    make_metrics,
    volume_id,
)

# name, number of slices, intensity: volumes count the same, whatever their length and unit
VOLUMES = {"a.h5": (3, 1.0), "b.h5": (1, 1e-5), "c.h5": (4, 300.0)}
Slice = tuple[str, int, Tensor, Tensor, float]


class SmallNet(nn.Module):
    """A feature network in miniature, with a batch norm that would notice training mode."""

    def __init__(self, in_chans: int = 1) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.in_chans, self.patch_size = in_chans, 8
        self.largest_batch = 0
        self.conv, self.norm, self.linear = nn.Conv2d(in_chans, 4, 3, stride=2), nn.BatchNorm2d(4), nn.Linear(4, 6)

    def forward(self, patches: Tensor) -> Tensor:
        self.largest_batch = max(self.largest_batch, len(patches))
        x = torch.tanh(self.norm(self.conv(patches))).square().mean(dim=(2, 3))
        return nn.functional.normalize(self.linear(x), dim=1)


def volume(fname: str, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    """Target and output, (slices, 24, 20), slices of different intensity and error."""
    count, unit = VOLUMES[fname]
    generator = torch.Generator().manual_seed(len(fname) + ord(fname[0]))
    target = torch.rand(count, 24, 20, generator=generator, dtype=dtype)
    weights = torch.arange(1, count + 1)[:, None, None]
    error = torch.randn(count, 24, 20, generator=generator, dtype=dtype) / weights
    return unit * weights * target, unit * weights * (target + 0.2 * error)


def all_slices(dtype: torch.dtype = torch.float32) -> list[Slice]:
    slices = []
    for fname in VOLUMES:
        target, output = volume(fname, dtype)
        largest = float(target.abs().max())
        slices += [(fname, i, output[i], target[i], largest) for i in range(len(target))]
    return slices


def collate(slices: Iterable[Slice]) -> dict[str, Any]:
    fname, slice_num, output, target, max_value = zip(*slices, strict=True)
    return {
        "output": torch.stack(output),
        "target": torch.stack(target),
        "fname": list(fname),
        "slice_num": torch.tensor(slice_num),
        "max_value": torch.tensor(max_value),
    }


def fill(metric: VolumeMetric, slices: list[Slice], batch_size: int = 1) -> VolumeMetric:
    for start in range(0, len(slices), batch_size):
        metric.update(**collate(slices[start : start + batch_size]))
    return metric


def score(metric: VolumeMetric, slices: list[Slice], batch_size: int = 1) -> float:
    value = fill(metric, slices, batch_size).compute()
    assert value.ndim == 0
    return float(value)


def all_metrics(in_chans: int = 1) -> dict[str, VolumeMetric]:
    return make_metrics(METRIC_NAMES, feature_net=SmallNet(in_chans))


def laplacian(image: np.ndarray) -> np.ndarray:
    """MATLAB's fspecial("log", 15, 1.5), applied with the border repeated."""
    y, x = np.mgrid[-7:8, -7:8]
    gaussian = np.exp(-(x**2 + y**2) / (2 * 1.5**2))
    kernel = gaussian * (x**2 + y**2 - 2 * 1.5**2) / 1.5**4 / gaussian.sum()
    return convolve(image, kernel - kernel.mean(), mode="nearest")


def numpy_nrmse(target: np.ndarray, output: np.ndarray) -> float:
    return float(np.sqrt(fastmri.evaluate.nmse(target, output)))


def numpy_relative_error(target: np.ndarray, output: np.ndarray) -> float:
    norm = np.linalg.norm
    return float(np.mean([norm(x - t) / norm(t) for t, x in zip(target, output, strict=True)]))


def skimage_dssim(target: np.ndarray, output: np.ndarray) -> float:
    options = {"data_range": target.max(), "gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    return float(np.mean([1 - structural_similarity(t, x, **options) for t, x in zip(target, output, strict=True)]))


def scipy_hfen(target: np.ndarray, output: np.ndarray) -> float:
    fine = [np.stack([laplacian(image) for image in images]) for images in (output - target, target)]
    return float(np.linalg.norm(fine[0]) / np.linalg.norm(fine[1]))


REFERENCES = [
    (NRMSE, numpy_nrmse),
    (RelativeError, numpy_relative_error),
    (DSSIM, skimage_dssim),
    (HFEN, scipy_hfen),
]


@pytest.mark.parametrize(("metric", "reference"), REFERENCES)
def test_value_is_the_mean_of_the_reference_over_volumes(
    metric: Callable[[], VolumeMetric], reference: Callable[[np.ndarray, np.ndarray], float]
) -> None:
    expected = {}
    for fname in VOLUMES:
        target, output = (images.double().numpy() for images in volume(fname))
        expected[volume_id(fname)] = reference(target, output)
    assert score(metric(), all_slices(), 3) == pytest.approx(np.mean(list(expected.values())), rel=1e-6)
    assert fill(metric(), all_slices(), 3).per_volume() == pytest.approx(expected, rel=1e-6)
    counts = [count for count, _ in VOLUMES.values()]  # the mean over slices would be another number
    assert np.average(list(expected.values()), weights=counts) != pytest.approx(
        np.mean(list(expected.values())), 0.01
    )


@pytest.mark.parametrize(("in_chans", "dtype"), [(1, torch.float32), (2, torch.complex64)])
def test_ufloss_is_the_mean_of_the_loss_over_slices_and_volumes(in_chans: int, dtype: torch.dtype) -> None:
    net = SmallNet(in_chans).eval()
    values = []
    for fname in VOLUMES:
        target, output = (images.unsqueeze(1) for images in volume(fname, dtype))
        values.append(ufloss_per_image(net, output, target, stride=4).mean().item())
    assert score(UFLossMetric(net, stride=4), all_slices(dtype)) == pytest.approx(np.mean(values), rel=1e-5)
    assert score(UFLossMetric(net, stride=3), all_slices(dtype)) != pytest.approx(np.mean(values), rel=1e-3)
    net.largest_batch = 0
    assert score(UFLossMetric(net, stride=4, chunk_size=6), all_slices(dtype)) == pytest.approx(np.mean(values), 1e-5)
    assert net.largest_batch == 6
    other = all_slices(torch.complex64 if in_chans == 1 else torch.float32)
    with pytest.raises(ValueError, match="channel"):
        score(UFLossMetric(net), other)


@pytest.mark.parametrize(("metric", "reference"), [(NRMSE, numpy_nrmse), (RelativeError, numpy_relative_error)])
def test_errors_of_the_phase_count(metric: Callable[[], VolumeMetric], reference: Callable[..., float]) -> None:
    slices = all_slices(torch.complex64)
    values = [reference(*(images.numpy() for images in volume(fname, torch.complex64))) for fname in VOLUMES]
    assert score(metric(), slices) == pytest.approx(np.mean(values), rel=1e-5)
    turned = [(fname, i, 1j * target, target, largest) for fname, i, _, target, largest in slices]
    for made in (metric(), HFEN()):
        assert score(made, turned) == pytest.approx(2**0.5)
    assert score(DSSIM(), turned) == pytest.approx(0, abs=1e-12)


def test_hfen_of_complex_images_filters_both_parts() -> None:
    values = []
    for fname in VOLUMES:
        target, output = (images.numpy().astype(complex) for images in volume(fname, torch.complex64))
        values.append(scipy_hfen(target, output))
    assert score(HFEN(), all_slices(torch.complex64), 2) == pytest.approx(np.mean(values), rel=1e-6)


@pytest.mark.parametrize("name", METRIC_NAMES)
def test_order_batches_and_repetition_do_not_matter(name: str) -> None:
    slices = all_slices()
    expected = score(all_metrics()[name], slices)
    assert score(all_metrics()[name], slices[::-1]) == expected  # to the last digit
    assert score(all_metrics()[name], slices, 5) == pytest.approx(expected, rel=1e-6)
    assert score(all_metrics()[name], [*slices, *slices[:2], slices[4]], 1) == expected
    with_axis = [(f, i, x[None], t[None], m) for f, i, x, t, m in slices]
    assert score(all_metrics()[name], with_axis) == expected
    without = [s for s in slices if s[:2] != ("a.h5", 0)]
    assert score(all_metrics()[name], without) != pytest.approx(expected, rel=1e-4)  # each slice does count


@pytest.mark.parametrize("name", METRIC_NAMES)
def test_unit_of_the_images_does_not_matter(name: str) -> None:
    slices = all_slices()
    raw = [(f, i, 1e-5 * x, 1e-5 * t, 1e-5 * m) for f, i, x, t, m in slices]
    expected = score(all_metrics()[name], slices)
    assert 0 < expected < 2 and expected != 1
    assert score(all_metrics()[name], raw) == pytest.approx(expected, rel=1e-5)
    with torch.autocast("cpu", dtype=torch.bfloat16):  # and neither the precision of the training
        assert score(all_metrics()[name], slices) == expected
    equal = [(f, i, t, t, m) for f, i, _, t, m in raw]
    assert score(all_metrics()[name], equal) == pytest.approx(float(all_metrics()[name].higher_is_better), abs=1e-6)


@pytest.mark.parametrize("name", METRIC_NAMES)
def test_images_in_half_precision_are_summed_up_in_double(name: str) -> None:
    # raw intensities whose squares half precision does not have
    halves = [(f, i, (1e-4 * x).half(), (1e-4 * t).half(), m) for f, i, x, t, m in all_slices() if f == "a.h5"]
    doubles = [(f, i, x.double(), t.double(), m) for f, i, x, t, m in halves]
    assert score(all_metrics()[name], halves) == pytest.approx(score(all_metrics()[name], doubles), rel=1e-6)


def test_collection_keeps_metrics_apart_that_look_alike_at_first() -> None:
    # torchmetrics shares the states of metrics whose states are close after the first batch: all are, of equal
    # images, and all energies of raw intensities
    slices = [(f, i, 1e-7 * x, 1e-7 * t, 1e-7 * m) for f, i, x, t, m in all_slices()]
    slices[0] = (*slices[0][:2], slices[0][3], *slices[0][3:])
    collection = MetricCollection(dict(all_metrics()))
    for one in slices:
        collection.update(**collate([one]))
    expected = {name: score(metric, slices) for name, metric in all_metrics().items()}
    assert {name: float(value) for name, value in collection.compute().items()} == expected
    assert ["nrmse", "relative_error"] in [sorted(group) for group in collection.compute_groups.values()]


def share(rank: int, case: str) -> list[Slice]:
    slices = all_slices()
    if case == "one has nothing":
        return slices if rank else []
    return slices[:3] + slices[7:] if rank else slices[2:7]  # unequal, volumes a and c on both, a slice of a as well


CASES = ("shared", "one has nothing")


def main(rank: int, folder: Path) -> None:
    """One of two processes, with its share of the slices."""
    wait = timedelta(seconds=60)
    meeting = f"file://{folder}/meeting"
    torch.distributed.init_process_group("gloo", init_method=meeting, rank=rank, world_size=2, timeout=wait)
    found: dict[tuple[str, str], Any] = {}
    for case in CASES:
        for name, metric in all_metrics().items():
            fill(metric, share(rank, case))
            found[case, name] = (float(metric.compute()), metric.per_volume())
        metric = fill(NRMSE(), share(rank, case)[:1])
        metric.compute()  # afterwards each goes on with its own slices
        found[case, "in two parts"] = float(fill(metric, share(rank, case)[1:]).compute())
    torch.save(found, folder / f"rank{rank}.pt")
    torch.distributed.destroy_process_group()


def test_two_processes_give_what_one_gives(tmp_path: Path) -> None:
    expected = {name: fill(metric, all_slices()) for name, metric in all_metrics().items()}
    values = {name: (float(metric.compute()), metric.per_volume()) for name, metric in expected.items()}
    # scikit-learn turns off what OpenMP needs to survive a fork
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "KMP_INIT_AT_FORK": "TRUE"}
    subprocess.run([sys.executable, __file__, str(tmp_path)], env=environment, check=True, timeout=300)
    for rank in "01":
        found = torch.load(tmp_path / f"rank{rank}.pt", weights_only=True)
        for case in CASES:
            assert {name: found[case, name] for name in METRIC_NAMES} == values  # to the last digit
            assert found[case, "in two parts"] == values["nrmse"][0]


class Scored(pl.LightningModule):
    """Its outputs are worse in the second epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.net = SmallNet()
        self.weight = nn.Parameter(torch.ones(()))
        self.metrics = nn.ModuleDict(all_metrics())
        self.values: list[dict[str, float]] = []

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return 0 * self.weight

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        batch["output"] = batch["output"] * (1 + self.current_epoch)
        for name, metric in self.metrics.items():
            metric.update(**batch)
            self.log(name, metric)

    def on_validation_end(self) -> None:
        self.values.append({name: float(self.trainer.callback_metrics[name]) for name in METRIC_NAMES})

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD([self.weight], lr=0.1)


def test_lightning_logs_each_epoch_on_its_own(tmp_path: Path) -> None:
    module, slices = Scored(), all_slices()
    options = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = pl.Trainer(
        accelerator="cpu", max_epochs=2, num_sanity_val_steps=1, default_root_dir=tmp_path, **options
    )
    loader = DataLoader(slices, batch_size=3, collate_fn=collate)
    trainer.fit(module, DataLoader(slices[:1], collate_fn=collate), loader)
    _, *epochs = module.values  # the first is of the sanity check
    for epoch, values in enumerate(epochs):
        outputs = [(f, i, (1 + epoch) * x, t, m) for f, i, x, t, m in slices]
        assert values == pytest.approx({name: score(m, outputs, 3) for name, m in all_metrics().items()}, rel=1e-6)
    assert len(epochs) == 2 and epochs[0]["nrmse"] < 0.9 < epochs[1]["nrmse"]
    assert all(not getattr(metric, name) for metric in module.metrics.values() for name in metric.slice_sums)
    checkpoint = torch.load(trainer.checkpoint_callback.best_model_path, weights_only=True)
    assert not [name for name in checkpoint["state_dict"] if "metrics" in name]


def test_network_is_frozen_and_no_part_of_the_metric() -> None:
    net = SmallNet().train()
    metric = UFLossMetric(net)
    assert not any(p.requires_grad for p in net.parameters())
    before = {name: value.clone() for name, value in net.state_dict().items()}
    holder = nn.ModuleDict({"metric": metric, "loss": nn.Linear(2, 2)})
    holder.train()
    value = score(metric, all_slices())
    target, output = (images.unsqueeze(1) for images in volume("b.h5"))
    assert metric.per_volume()[volume_id("b.h5")] == pytest.approx(
        UFLoss(net).eval()(output, target).item(), rel=1e-6
    )
    assert value > 0
    torch.testing.assert_close(dict(net.state_dict()), before, atol=0, rtol=0)
    assert set(holder.state_dict()) == {"loss.weight", "loss.bias"}
    assert {name for name, p in holder.named_parameters() if p.requires_grad} == {"loss.weight", "loss.bias"}
    holder.load_state_dict(holder.state_dict())
    images = torch.rand(2, 1, 24, 20, device="meta")  # a device that every machine has
    assert metric.to("meta").slice_values(images, images, None)[0].device.type == "meta"
    assert all(p.device.type == "meta" for p in net.parameters())


def test_states_are_a_few_numbers_of_each_slice() -> None:
    for metric in all_metrics().values():
        output = collate(all_slices())["output"].requires_grad_()
        value = metric(**{**collate(all_slices()), "output": output})  # a call, which torchmetrics gives gradients
        assert not value.requires_grad and value == metric.compute()
        for name in metric._defaults:
            (state,) = getattr(metric, name)
            assert state.shape == (8,) and state.dtype == (
                torch.float64 if name in metric.slice_sums else torch.int64
            )
            assert not state.requires_grad


def test_dark_slices_are_left_out_of_the_relative_error() -> None:
    dark = [("a.h5", 7, torch.ones(24, 20), torch.zeros(24, 20), 1.0)]
    unseen = [("dark.h5", 0, torch.ones(24, 20), torch.zeros(24, 20), 1.0)]
    assert score(RelativeError(), all_slices() + dark + unseen) == score(RelativeError(), all_slices())
    assert score(NRMSE(), all_slices() + dark) > score(NRMSE(), all_slices())
    assert np.isnan(score(RelativeError(), unseen))
    broken = [("a.h5", 7, torch.full((24, 20), torch.nan), torch.ones(24, 20), 1.0)]
    assert np.isnan(score(RelativeError(), all_slices() + broken))  # nothing is hidden


def test_nothing_seen_gives_nan() -> None:
    with pytest.warns(UserWarning, match="before the ``update``"):
        assert NRMSE().compute().isnan()
    assert NRMSE().per_volume() == {}


def test_id_of_a_volume_is_the_same_in_every_run() -> None:
    assert volume_id("file1000000.h5") == -8290981540033744863
    ids = {volume_id(f"file{i}.h5") for i in range(10_000)}
    assert len(ids) == 10_000 and min(ids) < 0 and all(-(2**63) <= i < 2**63 for i in ids)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"target": torch.ones(2, 24, 21)}, "target must have the shape of output"),
        ({"target": torch.ones(2, 1, 24, 20)}, "output must have shape|target must have the shape of output"),
        ({"target": torch.ones(2, 24, 20, dtype=torch.complex64)}, "output and target must both be"),
        ({"output": torch.ones(24, 20), "target": torch.ones(24, 20)}, r"output must have shape .*got \(24, 20\)"),
        ({"output": torch.ones(2, 2, 24, 20), "target": torch.ones(2, 2, 24, 20)}, "output must have shape"),
        ({"fname": ["a.h5"]}, r"fname must hold the 2 names .*got \['a.h5'\]"),
        ({"fname": "ab"}, "fname must hold the 2 names .*got 'ab'"),
        ({"slice_num": torch.tensor([1])}, r"slice_num must hold 2 integers, got torch.int64 of shape \(1,\)"),
        ({"slice_num": torch.tensor([1.0, 2.0])}, "slice_num must hold 2 integers, got torch.float32"),
        ({"max_value": torch.ones(3)}, r"max_value must have shape \(2,\), got \(3,\)"),
    ],
)
def test_bad_input_is_named_and_not_counted(change: dict[str, Any], message: str) -> None:
    metric = fill(NRMSE(), all_slices())
    expected = metric.compute()
    with pytest.raises(ValueError, match=message):
        metric.update(**{**collate(all_slices()[:2]), **change})
    assert metric.compute() == expected


def test_dssim_needs_the_data_range() -> None:
    with pytest.raises(ValueError, match="DSSIM needs max_value"):
        DSSIM().update(**{**collate(all_slices()), "max_value": None})
    without = {**collate(all_slices()), "max_value": None}
    NRMSE().update(**without)
    doubled = [(*one[:4], 2 * one[4]) for one in all_slices()]
    assert score(DSSIM(), doubled) < score(DSSIM(), all_slices())


def test_metrics_are_made_by_name() -> None:
    net = SmallNet()
    made = make_metrics(["ufloss", "hfen"], feature_net=net, ufloss={"stride": 7})
    assert list(made) == ["ufloss", "hfen"] and isinstance(made["hfen"], HFEN)
    assert score(made["ufloss"], all_slices()) == score(UFLossMetric(net, stride=7), all_slices())
    with pytest.raises(
        ValueError,
        match=r"unknown metric 'psnr', known are nrmse, .*, hfen, haarpsi, vsi, gmsd, ufloss",
    ):
        make_metrics(["psnr"])
    with pytest.raises(ValueError, match="'nrmse' twice"):
        make_metrics(["nrmse", "nrmse"])
    with pytest.raises(ValueError, match="'ufloss' needs feature_net"):
        make_metrics(["ufloss"])
    for name in ("stride", "chunk_size"):
        with pytest.raises(ValueError, match=f"{name} must be at least 1, got 0"):
            make_metrics(["ufloss"], feature_net=net, ufloss={name: 0})


if __name__ == "__main__":
    torch.set_num_threads(1)
    # forked, so that both import once, and from a script, which has no threads yet
    torch.multiprocessing.start_processes(main, args=(Path(sys.argv[1]),), nprocs=2, start_method="fork")
