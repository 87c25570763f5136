"""Time and peak memory of one MoDL training step: l2 against l2 + UFLoss, and the three CG backwards.

    python benchmarks/training_step.py [--json FILE]

Every configuration is measured in a process of its own, in turn with the others, `--repeats` times; the table
has medians. Memory is the peak of the process above what it had after importing, or the device's peak
on a GPU. Gradient errors are relative to the unrolled gradient in float64, of a small problem.
"""

import argparse
import json
import multiprocessing
import resource
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import torch

from fastmri_ufloss.losses import make_loss
from fastmri_ufloss.models import MoDL, PatchFeatureNet
from fastmri_ufloss.mri import sens_expand
from fastmri_ufloss.report import format_table

BACKWARDS = ("unrolled", "checkpoint", "implicit")


def make_batch(
    size: int, coils: int, device: str, dtype: torch.dtype = torch.float32
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Masked k-space, mask, maps and reference of one random slice."""
    generator = torch.Generator().manual_seed(0)
    grid = torch.linspace(-1, 1, size)
    angles = torch.arange(coils)[:, None, None] * 2 * torch.pi / coils
    distance = (grid[:, None] - angles.sin()) ** 2 + (grid[None] - angles.cos()) ** 2
    maps = torch.polar(1 / (0.5 + distance), angles.expand_as(distance))
    maps = torch.view_as_real(maps / maps.abs().square().sum(0).sqrt())[None].to(device, dtype)
    image = torch.randn(1, 1, size, size, 2, generator=generator).to(device, dtype)
    mask = torch.rand(1, 1, 1, size, 1, generator=generator) < 0.15
    mask[..., size // 2 - 13 : size // 2 + 13, :] = True
    mask = mask.to(device)
    return sens_expand(image, maps) * mask, mask, maps, torch.view_as_complex(image)[:, 0]


def measure(job: dict[str, Any]) -> dict[str, float]:
    """Median time of a step and peak memory in MiB, in this process."""
    baseline = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    device, cuda = job["device"], job["device"] == "cuda"
    torch.manual_seed(0)
    model = MoDL(**job["model"]).to(device).train()
    weights, net = {"l2": 1.0}, None
    if job["ufloss"]:
        weights, net = {"l2": 1.0, "ufloss": 1.5}, PatchFeatureNet()
    loss = make_loss(weights, feature_net=net).to(device).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
    kspace, mask, maps, target = make_batch(job["size"], job["coils"], device)
    times = []
    for _ in range(job["steps"] + 1):
        start = time.perf_counter()
        image = model(kspace, mask, sens_maps=maps, return_complex=True)
        value = loss(image.unsqueeze(1), target.unsqueeze(1), target.abs().amax().reshape(1))
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        if cuda:
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 - baseline
    if cuda:
        peak = torch.cuda.max_memory_allocated() / 2**20
    return {"seconds": statistics.median(times[1:]), "MiB": peak}


def gradient(model_settings: dict[str, Any], backward: str, dtype: torch.dtype) -> torch.Tensor:
    torch.manual_seed(0)
    model = MoDL(**{**model_settings, "cg_backward": backward, "chans": 8}).to(dtype)
    kspace, mask, maps, target = make_batch(64, 4, "cpu", dtype)
    image = model(kspace, mask, sens_maps=maps, return_complex=True)
    torch.view_as_real(image - target).square().mean().backward()
    return torch.cat([p.grad.flatten().double() for p in model.parameters()])


def in_process(job: dict[str, Any]) -> dict[str, float]:
    """`measure` in a fresh process, so that no peak is inherited."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(measure, (job,))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=320)
    parser.add_argument("--coils", type=int, default=8)
    parser.add_argument("--steps", type=int, default=3, help="timed steps of each process")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()

    base = {"size": args.size, "coils": args.coils, "steps": args.steps, "device": args.device}
    jobs = {
        "l2": {**base, "model": {}, "ufloss": False},
        "l2 + UFLoss": {**base, "model": {}, "ufloss": True},
        "l2, CG checkpoint": {**base, "model": {"cg_backward": "checkpoint"}, "ufloss": False},
        "l2, CG implicit": {**base, "model": {"cg_backward": "implicit"}, "ufloss": False},
    }
    results: dict[str, list[dict[str, float]]] = {name: [] for name in jobs}
    for repeat in range(args.repeats):
        for name, job in jobs.items():
            results[name].append(in_process(job))
            print(f"run {repeat + 1}, {name}: {results[name][-1]['seconds']:.2f} s", file=sys.stderr, flush=True)
    medians = {
        name: {key: statistics.median(r[key] for r in runs) for key in ("seconds", "MiB")}
        for name, runs in results.items()
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
    print(f"\nMoDL, default settings, {args.size}x{args.size}, {args.coils} coils, batch 1, {device}")
    print(format_table([{"step": name, **values} for name, values in medians.items()]))
    ratios = {
        "time_ratio": medians["l2 + UFLoss"]["seconds"] / medians["l2"]["seconds"],
        "memory_ratio": medians["l2 + UFLoss"]["MiB"] / medians["l2"]["MiB"],
    }
    print(f"UFLoss: time x {ratios['time_ratio']:.3f}, memory x {ratios['memory_ratio']:.3f}")
    print("\nRelative error of the gradient against unrolled, float64 (64x64, 4 coils, 8 channels)")
    print(format_table([{"backward": name, "error": error} for name, error in errors.items()]))
    if args.json:
        document = {
            "device": device,
            "medians": medians,
            "runs": results,
            **ratios,
            "gradient_errors": errors,
        }
        args.json.write_text(json.dumps(document, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
