"""What each loss adds to the time and the memory of a training step; `losses.py` prints it.

The step is that of fastMRI's U-Net with l1, and with l1 + the loss at its default settings: forward, backward, Adam.
Every measurement is a process of its own, in turn with the others; the table has medians. Memory is the peak of the
process above what it had after importing (Linux), or the device's peak on a GPU.
"""

import multiprocessing
import statistics
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from fastmri_ufloss.losses import LOSS_NAMES, make_loss
from fastmri_ufloss.models import PatchFeatureNet, Unet, VGGFeatures
from fastmri_ufloss.report import format_table


def memory(field: str) -> float:
    """A field of this process's status in MiB: VmRSS is the memory now, VmHWM the peak."""
    # not ru_maxrss: a child starts with that of its parent
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith(field)) / 1024


def networks_of(loss: str, feature_net: Path | None) -> dict[str, Any]:
    """The network of a loss that has a network, whose weights change neither time nor memory."""
    if loss == "ufloss":
        return {"feature_net": PatchFeatureNet.load(feature_net) if feature_net else PatchFeatureNet(1)}
    return {"vgg": VGGFeatures("vgg16")} if loss == "perceptual" else {}


def measure_step(job: Mapping[str, Any]) -> dict[str, float]:
    """Median time of a training step and peak memory in MiB, in this process."""
    baseline = memory("VmRSS")
    torch.set_num_threads(job["threads"])
    device, cuda, name = job["device"], job["device"] == "cuda", job["loss"]
    torch.manual_seed(0)
    model = Unet(1, 1, chans=32).to(device).train()
    loss = make_loss({"l1": 1.0, name: 1.0}, **networks_of(name, job["feature_net"])).to(device).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
    image, target = torch.rand(2, 1, 1, job["size"], job["size"]).to(device)
    times = []
    for _ in range(job["steps"] + 1):
        start = time.perf_counter()
        value = loss(model(image), target, target.amax().reshape(1))
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        if cuda:
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    peak = torch.cuda.max_memory_allocated() / 2**20 if cuda else memory("VmHWM") - baseline
    return {"seconds": statistics.median(times[1:]), "MiB": peak}


def measure_steps(
    feature_net: Path | None, *, size: int, steps: int, repeats: int, threads: int, device: str
) -> dict[str, Any]:
    """Every loss's step, each in a fresh process so that no peak is inherited, as a table on the terminal too."""
    settings = {"feature_net": feature_net, "size": size, "steps": steps, "threads": threads, "device": device}
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in LOSS_NAMES}
    for repeat in range(repeats):
        for name, results in runs.items():
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                results.append(pool.apply(measure_step, ({**settings, "loss": name},)))
            print(f"run {repeat + 1}, {name}: {results[-1]['seconds']:.2f} s", file=sys.stderr, flush=True)
    medians = {
        name: {key: statistics.median(run[key] for run in results) for key in ("seconds", "MiB")}
        for name, results in runs.items()
    }
    alone = medians["l1"]
    rows = [
        {
            "loss": name if name == "l1" else f"l1 + {name}",
            "seconds": step["seconds"],
            "added seconds": step["seconds"] - alone["seconds"],
            "factor": step["seconds"] / alone["seconds"],
            "MiB": step["MiB"],
            "added MiB": step["MiB"] - alone["MiB"],
        }
        for name, step in medians.items()
    ]
    device = torch.cuda.get_device_name() if device == "cuda" else f"CPU, {threads} thread{'s' * (threads > 1)}"
    print(f"\nTraining step: Unet, 32 channels, {size}x{size}, batch 1, {device}\n{format_table(rows)}")
    return {"device": device, "rows": rows, "runs": runs}
