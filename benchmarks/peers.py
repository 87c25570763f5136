"""A training step of MoDL beside the same network of other packages, and coil maps beside other ESPIRiTs.

    python benchmarks/peers.py --python PEERS/bin/python [--only NAME ...] [--json FILE]

PEERS is an environment of its own, with Python 3.12 or later: ``python -m venv PEERS; PEERS/bin/pip install deepinv
direct-recon bartorch espirit``. DIRECT needs 16 GB for 640 x 372. Each package runs in a process of its own, in turn
with the others, with the same random k-space, mask and maps: 5 unrolls of 6 conjugate gradient steps and 5
convolutions of 32 channels, each unroll with its own weights; forward and backward pass of the mean squared error.
The table has medians of wall and CPU seconds, and the peak of the process above what it had before. A package that is
missing or fails has a line that says so.

DIRECT solves once more than there are denoisers, and its denoiser has no residual; deepinv's backward pass is a
second solve. Tolerances at which conjugate gradients stop early are set to 0. "agreement" is the mean inner product
with the true maps in the object.
"""

import argparse
import ctypes
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

UNROLLS, CG, CHANS, LAYERS = 5, 6, 32, 5
SIZES = ((8, 256, 256), (15, 640, 372))
BAND = (15, 64, 372)  # of the second size; no other package trains on bands
ESPIRIT_SIZE = (15, 640, 372)

Step = Callable[[], Any]


def make_data(coils: int, rows: int, cols: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Masked k-space (coils, rows, cols), maps, the mask of columns (cols,) and the image (rows, cols)."""
    generator = torch.Generator().manual_seed(0)
    y, x = torch.linspace(-1, 1, rows)[:, None], torch.linspace(-1, 1, cols)
    angles = torch.arange(coils)[:, None, None] * 2 * torch.pi / coils
    distance = (y - angles.sin()) ** 2 + (x - angles.cos()) ** 2
    maps = torch.polar(1 / (0.5 + distance), angles.expand_as(distance))
    maps = maps / maps.abs().square().sum(0).sqrt()
    inside = (x / 0.7) ** 2 + (y / 0.55) ** 2 < 1
    image = inside * (1 + 0.1 * torch.randn(rows, cols, generator=generator)) * torch.exp(1j * (x + y * y))
    mask = torch.rand(cols, generator=generator) < 0.15
    mask[cols // 2 - 13 : cols // 2 + 13] = True
    axes = (-2, -1)
    kspace = torch.fft.fftshift(torch.fft.fft2(torch.fft.ifftshift(maps * image, dim=axes), norm="ortho"), dim=axes)
    return kspace * mask, maps, mask, image.to(torch.complex64)


def denoiser() -> nn.Module:
    """Convolutions of real and imaginary part (batch, 2, rows, cols), of which the identity is the start."""
    layers: list[nn.Module] = []
    chans = [2, *[CHANS] * (LAYERS - 1), 2]
    for before, after in pairwise(chans):
        layers += [nn.Conv2d(before, after, 3, padding=1), nn.LeakyReLU(0.1)]
    return nn.Sequential(*layers[:-1])


class Residual(nn.Module):
    """x + N(x), of (batch, 2, rows, cols); a noise level is not looked at."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = denoiser()

    def forward(self, x: Tensor, *_: Any, **__: Any) -> Tensor:
        return x + self.layers(x)


def channels(image: Tensor) -> Tensor:
    return torch.view_as_real(image).movedim(-1, -3)


def backward(output: Tensor, target: Tensor) -> None:
    (output - target).abs().square().mean().backward()


def ours(coils: int, rows: int, cols: int) -> Step:
    from fastmri_ufloss.models import MoDL

    kspace, maps, mask, image = make_data(coils, rows, cols)
    batch = [torch.view_as_real(x)[None].contiguous() for x in (kspace, maps)]
    model = MoDL(num_unrolls=UNROLLS, num_cg_iterations=CG, denoiser="cnn", chans=CHANS, num_layers=LAYERS)
    scale, columns = torch.ones(1), mask.view(1, 1, 1, cols, 1)

    def step() -> None:
        result = model(batch[0], columns, sens_maps=batch[1], scale=scale, return_complex=True)
        backward(result, image[None])

    return step


def deepinv(coils: int, rows: int, cols: int) -> Step:
    from deepinv.models import MoDL
    from deepinv.physics import MultiCoilMRI

    kspace, maps, mask, image = make_data(coils, rows, cols)
    physics = MultiCoilMRI(mask=mask.float().expand(rows, cols), coil_maps=maps[None], img_size=(2, rows, cols))
    physics.max_iter, physics.tol = CG, 0.0
    denoisers = nn.ModuleList(Residual() for _ in range(UNROLLS))
    model = MoDL(denoiser=Turns(denoisers), num_iter=UNROLLS)
    samples = torch.stack([kspace.real, kspace.imag])[None]
    return lambda: backward(model(samples, physics), channels(image)[None])


class Turns(nn.Module):
    """The denoisers of the unrolls, one after the other."""

    def __init__(self, denoisers: nn.ModuleList) -> None:
        super().__init__()
        self.denoisers = denoisers
        self.calls = 0

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        self.calls += 1
        result: Tensor = self.denoisers[(self.calls - 1) % len(self.denoisers)](x, *args, **kwargs)
        return result


def direct(coils: int, rows: int, cols: int) -> Step:
    from direct.data.transforms import fft2, ifft2
    from direct.nn.conjgradnet.conjgradnet import ConjGradNet

    kspace, maps, mask, image = make_data(coils, rows, cols)
    options = {"conv_hidden_channels": CHANS, "conv_n_convs": LAYERS, "conv_activation": "leaky_relu"}
    model = ConjGradNet(fft2, ifft2, UNROLLS, denoiser_architecture="conv", cg_iters=CG, cg_tol=0.0, **options)
    samples, real_maps = (torch.view_as_real(x)[None].contiguous() for x in (kspace, maps))
    columns = mask.view(1, 1, 1, cols, 1).expand(1, 1, rows, cols, 1)
    return lambda: backward(model(samples, real_maps, columns), torch.view_as_real(image)[None])


def bartorch(coils: int, rows: int, cols: int) -> Step:
    from bartorch import learning, linop, optim, priors

    kspace, maps, mask, image = make_data(coils, rows, cols)
    operator = linop.CartesianSense(maps, (rows, cols), mask.to(torch.complex64).expand(rows, cols).contiguous())
    blocks = []
    for _ in range(UNROLLS):
        prior = priors.ImplicitPrior(Residual(), spatial=2, channels=2, normalize=False)
        block = optim.ADMMBlock(prior, rho=0.05, alpha=1.0, cg_maxiter=CG, fast=True)
        block.rho.requires_grad_()
        block._cg_eps = 0.0  # its 1e-3 ends most solves after one step
        blocks.append(block)
    model = learning.Unrolled(blocks)
    return lambda: backward(model(kspace, operator), image)


def maps_of_ours(coils: int, rows: int, cols: int) -> Step:
    from fastmri_ufloss.mri import estimate_sens_maps

    kspace, *_ = make_data(coils, rows, cols)
    batch = torch.view_as_real(kspace)[None].contiguous()
    return lambda: torch.view_as_complex(estimate_sens_maps(batch, 24))[0]


def maps_of_espirit(coils: int, rows: int, cols: int) -> Step:
    import espirit

    kspace, *_ = make_data(coils, rows, cols)
    return lambda: espirit.espirit(kspace, calib_size=24, kernel_size=6, threshold=0.02, device="cpu")


def maps_of_bartorch(coils: int, rows: int, cols: int) -> Step:
    from bartorch import tools

    kspace, *_ = make_data(coils, rows, cols)
    return lambda: tools.ecalib(kspace, maps=1, calib_size=24, kernel_size=6, threshold=0.02, crop=0.8)


TRAINING = {
    "MoDL of this package": ours,
    "deepinv MoDL": deepinv,
    "DIRECT ConjGradNet": direct,
    "bartorch Unrolled": bartorch,
}
MAPS = {"ESPIRiT of this package": maps_of_ours, "espirit": maps_of_espirit, "bartorch ecalib": maps_of_bartorch}
OURS = (ours, maps_of_ours)


def memory(field: str) -> float:
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith(field)) / 1e3


def measure(name: str, size: list[int], steps: int) -> dict[str, float]:
    """In a process of its own: medians of the steps after the first, and the peak of all."""
    torch.manual_seed(0)
    step = {**TRAINING, **MAPS}[name](*size)
    ctypes.CDLL(None).malloc_trim(0)  # what is freed is not held
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = memory("VmRSS")
    wall, cpu = [], []
    for _ in range(steps + 1):
        start = time.perf_counter(), time.process_time()
        result = step()
        wall.append(time.perf_counter() - start[0])
        cpu.append(time.process_time() - start[1])
    values = {"seconds": statistics.median(wall[1:]), "CPU seconds": statistics.median(cpu[1:])}
    values["MB"] = memory("VmHWM") - before
    if name in MAPS:
        _, truth, _, image = make_data(*size)
        maps = torch.as_tensor(np.asarray(result)).reshape(truth.shape)
        kept = (maps.abs().sum(0) > 0) & (image != 0)
        products = (maps.conj() * truth).sum(0).abs() / maps.abs().square().sum(0).sqrt()
        values["agreement"] = float(products[kept].mean())
    return values


def in_process(python: str, name: str, size: tuple[int, ...], steps: int) -> dict[str, Any]:
    command = [python, __file__, "--child", json.dumps([name, size, steps])]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[1])}
    result = subprocess.run(command, capture_output=True, text=True, env=environment)
    if result.returncode:
        return {"problem": (result.stderr.strip().splitlines() or ["no message"])[-1][:200]}
    return dict(json.loads(result.stdout.splitlines()[-1]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", default=sys.executable, help="of an environment that has the packages")
    parser.add_argument(
        "--only", nargs="+", default=[""], metavar="NAME", help="packages whose names hold one of these"
    )
    parser.add_argument("--steps", type=int, default=3, help="timed steps of each process")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        sys.path.remove(str(Path(__file__).resolve().parent))  # which has an espirit.py, too
        print(json.dumps(measure(*json.loads(args.child))))
        return
    from fastmri_ufloss.report import format_table

    jobs = [(name, size) for size in SIZES for name in TRAINING] + [(next(iter(TRAINING)), BAND)]
    jobs += [(name, ESPIRIT_SIZE) for name in MAPS]
    jobs = [job for job in jobs if any(part in job[0] for part in args.only)]
    runs: dict[tuple[str, tuple[int, ...]], list[dict[str, Any]]] = {job: [] for job in jobs}
    for _ in range(args.repeats):
        for name, size in jobs:
            python = sys.executable if {**TRAINING, **MAPS}[name] in OURS else args.python
            runs[name, size].append(in_process(python, name, size, args.steps))
            print(f"{name}, {size}: {runs[name, size][-1]}", file=sys.stderr, flush=True)
    rows = []
    for (name, size), results in runs.items():
        row: dict[str, Any] = {"what": name, "coils x rows x cols": " x ".join(map(str, size))}
        problem = next((result["problem"] for result in results if "problem" in result), None)
        keys = () if problem else results[0]
        row |= {key: statistics.median(result[key] for result in results) for key in keys}
        rows.append(row | ({"problem": problem} if problem else {}))
    print(f"\nCPU, {torch.get_num_threads()} threads")
    for kinds in (TRAINING, MAPS):
        if measured := [row for row in rows if row["what"] in kinds and "problem" not in row]:
            print(format_table(measured), end="\n\n")
    for row in rows:
        if "problem" in row:
            print(f"{row['what']}: {row['problem']}")
    if args.json:
        args.json.write_text(
            json.dumps({"threads": torch.get_num_threads(), "rows": rows}, indent=1), encoding="utf-8"
        )


if __name__ == "__main__":
    main()
