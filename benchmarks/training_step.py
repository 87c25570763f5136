"""Time and peak memory of MoDL: a training step, from the UFLoss paper's settings to the defaults; inference.

    python benchmarks/training_step.py [--only NAME ...] [--json FILE]

A slice of 640 x 372 with 15 coils but where another is named, batch 1, l2 but for UFLoss. Each row is measured in a
process of its own, in turn with the others, `--repeats` times; the table has medians. "MB" is the peak of the process
above what it had before the first step, or the device's peak on a GPU; "kernels" are counted operations. What a band
and coil maps cost is listed apart.

Inference stands beside its FFTs and convolutions measured alone: the same calls, counted in the network, each on
random numbers. Gradient errors are relative to the unrolled gradient in float64, of a small problem.
"""

import argparse
import ctypes
import json
import multiprocessing
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from fastmri_ufloss.losses import make_loss
from fastmri_ufloss.models import MoDL, PatchFeatureNet, pretrained_feature_net
from fastmri_ufloss.mri import (
    coil_compression_matrix,
    compress_coils,
    cut_rows,
    estimate_sens_maps,
    sens_expand,
)
from fastmri_ufloss.report import format_table

BACKWARDS = ("unrolled", "checkpoint", "implicit")
ROWS, KEPT_ROWS, BAND, COLS, COILS, VIRTUAL_COILS = 640, 320, 64, 372, 15, 8
PAPER = {"num_unrolls": 5, "denoiser": "unet", "chans": 64, "share_weights": True}  # configs/paper.yaml
JOBS: dict[str, dict[str, Any]] = {
    "paper's settings, whole slice": {"kind": "train", "rows": ROWS, "coils": COILS, "model": PAPER},
    "  + bands of 64 rows and 8 virtual coils": {
        "kind": "train",
        "rows": BAND,
        "coils": VIRTUAL_COILS,
        "model": PAPER,
    },
    "default network, whole slice": {"kind": "train", "rows": ROWS, "coils": COILS},
    "  + bands of 64 rows": {"kind": "train", "rows": BAND, "coils": COILS},
    "  + bands and UFLoss, general": {"kind": "train", "rows": BAND, "coils": COILS, "ufloss": "general"},
    "  + bands and UFLoss, ResNet-18": {"kind": "train", "rows": BAND, "coils": COILS, "ufloss": "resnet18"},
    "    + 8 virtual coils": {"kind": "train", "rows": BAND, "coils": VIRTUAL_COILS},
    "      + UFLoss, general": {"kind": "train", "rows": BAND, "coils": VIRTUAL_COILS, "ufloss": "general"},
    "      + UFLoss, ResNet-18": {"kind": "train", "rows": BAND, "coils": VIRTUAL_COILS, "ufloss": "resnet18"},
    "      CG checkpoint": {
        "kind": "train",
        "rows": BAND,
        "coils": VIRTUAL_COILS,
        "model": {"cg_backward": "checkpoint"},
    },
    "      CG implicit": {
        "kind": "train",
        "rows": BAND,
        "coils": VIRTUAL_COILS,
        "model": {"cg_backward": "implicit"},
    },
    "bands of 8 x 256 x 256": {"kind": "train", "rows": BAND, "cols": 256, "coils": 8},
    "  + UFLoss, general": {"kind": "train", "rows": BAND, "cols": 256, "coils": 8, "ufloss": "general"},
    "  + UFLoss, ResNet-18": {"kind": "train", "rows": BAND, "cols": 256, "coils": 8, "ufloss": "resnet18"},
    "cutting a band": {"kind": "cut_rows", "rows": ROWS, "coils": COILS},
    "15 to 8 coils": {"kind": "compress", "rows": ROWS, "coils": COILS},
    "coil maps, 15 coils": {"kind": "maps", "rows": ROWS, "coils": COILS},
    "coil maps, 8 coils": {"kind": "maps", "rows": ROWS, "coils": VIRTUAL_COILS},
    "inference, 640 rows": {"kind": "infer", "rows": ROWS, "coils": COILS},
    "inference, the 320 rows that are kept": {"kind": "infer", "rows": KEPT_ROWS, "coils": COILS},
}


def make_batch(
    rows: int, cols: int, coils: int, device: str, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Masked k-space, mask, maps and reference of one random slice."""
    generator = torch.Generator().manual_seed(0)
    y, x = torch.linspace(-1, 1, rows)[:, None], torch.linspace(-1, 1, cols)
    angles = torch.arange(coils)[:, None, None] * 2 * torch.pi / coils
    distance = (y - angles.sin()) ** 2 + (x - angles.cos()) ** 2
    maps = torch.polar(1 / (0.5 + distance), angles.expand_as(distance))
    maps = torch.view_as_real(maps / maps.abs().square().sum(0).sqrt())[None].to(device, dtype)
    magnitude = (x**2 + y**2 < 0.8) * (1 + 0.1 * torch.randn(1, 1, rows, cols, generator=generator))
    image = torch.view_as_real(torch.polar(magnitude, (x + y**2).expand_as(magnitude))).to(device, dtype)
    mask = torch.rand(1, 1, 1, cols, 1, generator=generator) < 0.15
    mask[..., cols // 2 - 13 : cols // 2 + 13, :] = True
    mask = mask.to(device)
    return sens_expand(image, maps) * mask, mask, maps, torch.view_as_complex(image)[:, 0]


def make_rows(rows: int, cols: int, coils: int, device: str) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The middle rows of a whole slice, as the loader cuts them."""
    whole = ROWS if cols == COLS else cols
    kspace, mask, maps, image = make_batch(whole, cols, coils, device)
    first = (whole - rows) // 2
    kept = slice(first, first + rows)
    return cut_rows(kspace, first, rows), mask, maps[:, :, kept].contiguous(), image[:, kept].contiguous()


def memory(field: str) -> float:
    """MB that this process holds (VmRSS), or has held at most (VmHWM)."""
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith(field)) / 1e3


def begin_peak() -> float:
    """MB that this process holds, without what it has freed; its peak begins anew."""
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    return memory("VmRSS")


def clocks(device: str) -> tuple[float, float]:
    """Wall seconds and CPU seconds."""
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter(), time.process_time()


def timed(function: Callable[[], Any], device: str) -> tuple[float, float]:
    start = clocks(device)
    function()
    return tuple(after - before for before, after in zip(start, clocks(device), strict=True))


def measure(job: dict[str, Any]) -> dict[str, float]:
    """Medians of wall and CPU seconds, and peak memory, in this process."""
    device, steps = job["device"], job["steps"]
    kspace, mask, maps, target = make_rows(job["rows"], job.get("cols", COLS), job["coils"], device)
    baseline = begin_peak()
    torch.manual_seed(0)
    model = MoDL(**job.get("model", {})).to(device).train()

    def infer() -> None:
        with torch.no_grad():
            model(kspace, mask, sens_maps=maps, scale=torch.ones(1, device=device))

    run = {
        "train": lambda: training_step(model, kspace, mask, maps, target, ufloss=job.get("ufloss")),
        "infer": lambda: infer,
        "cut_rows": lambda: lambda: cut_rows(kspace, ROWS // 2, BAND),
        "compress": lambda: lambda: compress_coils(kspace, coil_compression_matrix(kspace)[0][:VIRTUAL_COILS]),
        "maps": lambda: lambda: estimate_sens_maps(kspace, 26, mask=mask),
    }[job["kind"]]()
    run()
    kernels = count_kernels(run)
    seconds, cpu = zip(*(timed(run, device) for _ in range(steps)), strict=True)
    peak = torch.cuda.max_memory_allocated() / 1e6 if device == "cuda" else memory("VmHWM") - baseline
    result: dict[str, float] = {
        "seconds": statistics.median(seconds),
        "CPU seconds": statistics.median(cpu),
        "MB": peak,
        "kernels": kernels,
    }
    if job["kind"] == "infer":
        which = 0 if device == "cuda" else 1
        calls = count_calls(infer)
        pairs = [(timed(infer, device)[which], replay(calls, device)) for _ in range(steps)]
        alone = {name: statistics.median(parts[name] for _, parts in pairs) for name in pairs[0][1]}
        result |= {f"{name} alone": value for name, value in alone.items()}
        result["ratio"] = statistics.median(whole / sum(parts.values()) for whole, parts in pairs)
    return result


def training_step(
    model: MoDL, kspace: Tensor, mask: Tensor, maps: Tensor, target: Tensor, *, ufloss: str | None
) -> Callable[[], None]:
    weights: dict[str, float | str] = {"l2": 1.0}
    net = None
    if ufloss is not None:
        weights["ufloss"] = "auto"
        net = PatchFeatureNet() if ufloss == "resnet18" else pretrained_feature_net("general-complex")
    loss = make_loss(weights, feature_net=net).to(kspace.device).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4, foreach=True)  # as on a GPU
    data_range = target.abs().amax().reshape(1)
    scale = torch.ones_like(data_range)

    def step() -> None:
        image = model(kspace, mask, sens_maps=maps, scale=scale, return_complex=True)
        value = loss(image.unsqueeze(1), target.unsqueeze(1), data_range)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()

    return step


def count_kernels(function: Callable[[], None]) -> int:
    """Operations that compute tensors: a GPU launches one kernel, or a few, for each. Backward passes count, too."""
    count = 0

    class Count(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            nonlocal count
            is_view = any(r.alias_info is not None and not r.alias_info.is_write for r in func._schema.returns)
            count += not is_view and not func._schema.name.startswith(("aten::empty", "aten::detach"))
            return func(*args, **(kwargs or {}))

    with Count():
        function()
    return count


KINDS = {
    torch.ops.aten._fft_c2c.default: "FFTs",
    torch.ops.aten.convolution.default: "convolutions",
}
Calls = Counter[tuple[Any, ...]]


def count_calls(function: Callable[[], None]) -> Calls:
    """How often a function calls FFTs and convolutions with tensors of which layout and which other arguments."""
    calls: Calls = Counter()

    class Count(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if func in KINDS:
                parts = [(tuple(x.shape), x.stride(), x.dtype) if isinstance(x, Tensor) else str(x) for x in args]
                calls[(func, *parts)] += 1
            return func(*args, **(kwargs or {}))

    with Count():
        function()
    return calls


def replay(calls: Calls, device: str) -> dict[str, float]:
    """Seconds of the calls by kind: of each a call on random numbers, times their number."""
    totals = dict.fromkeys(KINDS.values(), 0.0)
    for (func, *parts), count in calls.items():
        args = [
            torch.empty_strided(part[0], part[1], dtype=part[2], device=device).normal_()
            if isinstance(part, tuple)
            else json.loads(part.lower().replace("none", "null"))
            for part in parts
        ]
        with torch.no_grad():
            func(*args)
            which = 0 if device == "cuda" else 1
            repeats = min(count, 3)
            for _ in range(repeats):  # the results are not kept: that would count the memory's page faults
                totals[KINDS[func]] += timed(lambda: func(*args), device)[which] * count / repeats  # noqa: B023
    return totals


def gradient(model_settings: dict[str, Any], backward: str, dtype: torch.dtype) -> Tensor:
    torch.manual_seed(0)
    model = MoDL(**{**model_settings, "cg_backward": backward, "chans": 8})
    with torch.no_grad():  # untrained denoisers change nothing, and have next to no gradient
        for parameter in model.denoisers.parameters():
            parameter.add_(0.03 * torch.randn_like(parameter))
    model.to(dtype)
    kspace, mask, maps, target = make_batch(64, 64, 4, "cpu", dtype)
    image = model(kspace, mask, sens_maps=maps, return_complex=True)
    torch.view_as_real(image - target).square().mean().backward()
    return torch.cat([p.grad.flatten().double() for p in model.parameters()])


def in_process(job: dict[str, Any]) -> dict[str, float]:
    """`measure` in a fresh process, so that no peak is inherited."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(measure, (job,))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=[""], metavar="NAME", help="rows whose names hold one of these")
    parser.add_argument("--steps", type=int, default=3, help="timed steps of each process")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()

    jobs = {name: job for name, job in JOBS.items() if any(part in name for part in args.only)}
    results: dict[str, list[dict[str, float]]] = {name: [] for name in jobs}
    for repeat in range(args.repeats):
        for name, job in jobs.items():
            results[name].append(in_process({**job, "steps": args.steps, "device": args.device}))
            print(f"run {repeat + 1}, {name}: {results[name][-1]}", file=sys.stderr, flush=True)
    medians = {
        name: {key: statistics.median(r[key] for r in runs) for key in runs[0]} for name, runs in results.items()
    }
    reference = gradient({}, "unrolled", torch.float64)
    errors = {
        f"{backward}, {str(dtype).removeprefix('torch.')}": float(
            (gradient({}, backward, dtype) - reference).norm() / reference.norm()
        )
        for backward in BACKWARDS
        for dtype in (torch.float32, torch.float64)
    }
    device = torch.cuda.get_device_name() if args.device == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    print(f"\nMoDL, {ROWS}x{COLS}, {COILS} coils, batch 1, {device}")
    first = next(iter(medians.values()))
    for kinds in (("train", "cut_rows", "compress", "maps"), ("infer",)):
        rows = [{"what": name, **values} for name, values in medians.items() if jobs[name]["kind"] in kinds]
        for row in rows:
            if jobs[row["what"]]["kind"] == "train":
                row |= {f"{key}, x": row[key] / first[key] for key in ("CPU seconds", "MB")}
        if rows:
            print(format_table(rows), end="\n\n")
    print("Relative error of the gradient against unrolled, float64 (64x64, 4 coils, 8 channels)")
    print(format_table([{"backward": name, "error": error} for name, error in errors.items()]))
    if args.json:
        document = {"device": device, "medians": medians, "runs": results, "gradient_errors": errors}
        args.json.write_text(json.dumps(document, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
