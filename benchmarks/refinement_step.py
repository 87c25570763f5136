"""Time and peak memory of a training step of stage 2, of stage 1, and of joint training.

    python benchmarks/refinement_step.py [--json FILE]

One coil, the paper's networks, 256x256 and 512x512. A step is the module's own with its optimizers, by Lightning,
without data loading. Every measurement is a process of its own, in turn with the others; the table has medians.
Memory is the peak of the process above what it had after importing (Linux), or the device's peak on a GPU. The
weights of UFLoss's network and of VGG are random, which changes neither.
"""

import argparse
import json
import logging
import multiprocessing
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from loss_step import memory

from fastmri_ufloss.data import MoDLSample, collate
from fastmri_ufloss.losses import L2Loss, PerceptualLoss, UFLoss
from fastmri_ufloss.models import PatchFeatureNet, VGGFeatures
from fastmri_ufloss.pl_modules import JointModule, RecNetModule, RefinementModule
from fastmri_ufloss.report import format_table

STEPS = {
    "stage 1: RecNet": lambda: RecNetModule(),
    "stage 2, no perceptual term": lambda: RefinementModule(RecNetModule()),
    "stage 2, UFLoss": lambda: RefinementModule(
        RecNetModule(), image_losses={"perceptual": UFLoss(PatchFeatureNet(1, patch_size=40))}
    ),
    "stage 2, VGG-19": lambda: RefinementModule(
        RecNetModule(), image_losses={"perceptual": PerceptualLoss(VGGFeatures("vgg19"))}
    ),
    "joint, no perceptual term": lambda: JointModule(RecNetModule(), image_losses={"l2": L2Loss()}),
}


class Samples(torch.utils.data.Dataset):
    """One random slice, as often as asked for."""

    def __init__(self, size: int, count: int) -> None:
        generator = torch.Generator().manual_seed(0)
        image = torch.rand(1, size, size, 2, generator=generator)
        mask = torch.rand(1, 1, size, 1, generator=generator) < 0.125
        kspace = torch.view_as_real(torch.fft.fft2(torch.view_as_complex(image), norm="ortho"))
        maps = torch.zeros_like(image)
        maps[..., 0] = 1
        self.count = count
        self.sample = MoDLSample(
            masked_kspace=kspace * mask, mask=mask, num_low_frequencies=8, target=torch.rand(size, size),
            fname="a.h5", slice_num=0, max_value=1.0, crop_size=(size, size), sens_maps=maps,
            reference=torch.view_as_complex(image)[0], scale=1.0, kspace=None,
        )  # fmt: skip

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> MoDLSample:
        return self.sample


class Clock(pl.Callback):
    """Seconds of each step."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def on_train_batch_start(self, *_: Any) -> None:
        self._start = time.perf_counter()

    def on_train_batch_end(self, *_: Any) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.seconds.append(time.perf_counter() - self._start)


def measure(job: Mapping[str, Any]) -> dict[str, float]:
    """Median time of a step and peak memory in MiB, in this process."""
    warnings.simplefilter("ignore")
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    baseline = memory("VmRSS")
    torch.set_num_threads(job["threads"])
    torch.manual_seed(0)
    clock = Clock()
    loader = torch.utils.data.DataLoader(
        Samples(job["size"], (job["steps"] + 1) * job["batch"]), job["batch"], collate_fn=collate
    )
    with tempfile.TemporaryDirectory() as folder:
        trainer = pl.Trainer(
            accelerator=job["accelerator"], devices=1, default_root_dir=folder, max_epochs=1, logger=False,
            enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, callbacks=[clock],
            precision=job["precision"],
        )  # fmt: skip
        trainer.fit(STEPS[job["step"]](), loader)
    cuda = trainer.strategy.root_device.type == "cuda"
    peak = torch.cuda.max_memory_allocated() / 2**20 if cuda else memory("VmHWM") - baseline
    return {"seconds": statistics.median(clock.seconds[1:]), "MiB": peak}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[256, 512])
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--steps", type=int, default=2, help="timed steps of each process")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--precision", default="32-true")
    parser.add_argument("--accelerator", default="auto")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    settings = {name: getattr(args, name) for name in ("batch", "steps", "threads", "precision", "accelerator")}
    runs: dict[tuple[int, str], list[dict[str, float]]] = {(size, step): [] for size in args.sizes for step in STEPS}
    for repeat in range(args.repeats):
        for (size, step), results in runs.items():
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                results.append(pool.apply(measure, ({**settings, "size": size, "step": step},)))
            print(f"run {repeat + 1}, {size}, {step}: {results[-1]}", file=sys.stderr, flush=True)
    rows = []
    for (size, step), results in runs.items():
        row: dict[str, Any] = {"size": size, "step": step}
        row |= {key: statistics.median(run[key] for run in results) for key in ("seconds", "MiB")}
        first = next((earlier for earlier in rows if earlier["size"] == size), row)
        rows.append({**row, **{f"{key} / stage 1": row[key] / first[key] for key in ("seconds", "MiB")}})
    cuda = torch.cuda.is_available() and args.accelerator != "cpu"
    device = torch.cuda.get_device_name() if cuda else f"CPU, {args.threads} threads"
    print(f"\nTraining steps of batches of {args.batch}, {args.precision}, {device}\n{format_table(rows)}")
    if args.json:
        everything = [{"size": size, "step": step, "runs": results} for (size, step), results in runs.items()]
        document = {"device": device, "settings": settings, "rows": rows, "runs": everything}
        args.json.write_text(json.dumps(document, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
