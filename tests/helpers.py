"""What several tests need: random complex tensors, small volumes, the shared data, recipes as a user types them."""

import contextlib
import io
import os
import random
import runpy
import signal
import subprocess
import sys
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
import pytest
import torch
from torch import Tensor

from fastmri_ufloss.simulation.simulate import simulate_kspace, write_volume

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "fastmri_examples"
DATA = Path(os.environ.get("FASTMRI_UFLOSS_DATA", "no-data"))


def needs_data() -> pytest.MarkDecorator:
    """Skips a test on real data unless FASTMRI_UFLOSS_DATA names their folder."""
    return pytest.mark.skipif("FASTMRI_UFLOSS_DATA" not in os.environ, reason="FASTMRI_UFLOSS_DATA is not set")


def randn_complex(*shape: int, seed: int = 0, dtype: torch.dtype = torch.complex64) -> Tensor:
    """Complex white noise of unit variance."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def ifftc(kspace: np.ndarray, axes: tuple[int, ...] = (-3, -2, -1)) -> np.ndarray:
    """Centered orthonormal inverse Fourier transform."""
    return np.fft.fftshift(np.fft.ifftn(np.fft.ifftshift(kspace, axes=axes), axes=axes, norm="ortho"), axes=axes)


def simulate_volume(
    path: Path,
    images: np.ndarray,
    *,
    num_coils: int | None = 8,
    snr: float = 30.0,
    phase_strength: float = 1.0,
    seed: int = 0,
    **options: Any,
) -> None:
    """Write images as if they had been scanned, with options of `write_volume`."""
    scan: dict[str, Any] = {"snr": snr, "phase_strength": phase_strength, "seed": seed}
    write_volume(path, simulate_kspace(images, num_coils=num_coils, **scan), **options)


def column_mask(batch: int, cols: int, *, every: int = 3, center: int = 8) -> Tensor:
    """A mask (batch, 1, 1, cols, 1) of every n-th column and a full center."""
    mask = torch.zeros(batch, 1, 1, cols, 1, dtype=torch.bool)
    mask[..., ::every, :] = True
    start = (cols - center + 1) // 2
    mask[..., start : start + center, :] = True
    return mask


def smooth_maps(batch: int, coils: int, rows: int, cols: int, *, dtype: torch.dtype = torch.complex64) -> Tensor:
    """Smooth coil maps of unit norm, (batch, coils, rows, cols, 2)."""
    y, x = torch.meshgrid(torch.linspace(-1, 1, rows), torch.linspace(-1, 1, cols), indexing="ij")
    angles = torch.arange(coils) * 2 * torch.pi / coils
    distance = (y - angles.sin()[:, None, None]) ** 2 + (x - angles.cos()[:, None, None]) ** 2
    phase = angles[:, None, None] + 0.5 * x * angles.cos()[:, None, None] + 0.3 * y
    maps = torch.polar(1 / (0.5 + distance), phase)
    maps = maps / maps.abs().square().sum(dim=0, keepdim=True).sqrt()
    return torch.view_as_real(maps.to(dtype).expand(batch, -1, -1, -1).contiguous())


def replace_batch_norm(module: torch.nn.Module) -> None:
    """Put layers in place of batch norm that do not depend on how a batch is divided among processes."""
    for name, layer in list(module.named_modules()):
        if isinstance(layer, torch.nn.BatchNorm2d):
            module.set_submodule(name, torch.nn.GroupNorm(1, layer.num_features))


class Output(NamedTuple):
    """What a script has printed."""

    stdout: str
    stderr: str


def run_process(
    script: str, *options: object, cwd: Path, fails: bool = False, environment: Mapping[str, str] | None = None
) -> Output:
    """``python fastmri_examples/SCRIPT OPTIONS`` in a folder, on the CPU; asserts how it ends."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", **(environment or {})}
    command = [sys.executable, str(EXAMPLES / script), *map(str, options)]
    result = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300)
    assert (result.returncode != 0) == fails, result.stderr[-3000:]
    assert not fails or "Traceback" not in result.stderr, result.stderr[-3000:]
    return Output(result.stdout, result.stderr)


def run_recipe(
    script: str, *options: object, cwd: Path, fails: bool = False, environment: Mapping[str, str] | None = None
) -> Output:
    """As `run_process`, but in this process, which saves the seconds that the imports take.

    An error that would end in a traceback is raised. What the script changes of the interpreter is put back.
    """
    path = EXAMPLES / script
    stdout, stderr = io.StringIO(), io.StringIO()
    failed = False
    with (
        _interpreter([str(path), *map(str, options)], cwd, environment or {}),
        contextlib.redirect_stdout(stdout),
        contextlib.redirect_stderr(stderr),
    ):
        try:
            runpy.run_path(str(path), run_name="__main__")
        except SystemExit as end:
            failed = end.code not in (None, 0)
            if isinstance(end.code, str):  # as Python itself does
                print(end.code, file=sys.stderr)
    assert failed == fails, stderr.getvalue()[-3000:]
    return Output(stdout.getvalue(), stderr.getvalue())


@contextlib.contextmanager
def _interpreter(argv: list[str], cwd: Path, environment: Mapping[str, str]) -> Iterator[None]:
    """The interpreter as a script finds it at its start, and afterwards as it was."""
    import pytorch_lightning  # noqa: F401  before stderr is exchanged: its log keeps the one that it finds

    with contextlib.ExitStack() as stack:
        stack.callback(sys.modules.update, _pop_modules_of_recipes())
        stack.callback(_pop_modules_of_recipes)
        stack.callback(random.setstate, random.getstate())
        stack.callback(np.random.set_state, np.random.get_state())
        stack.callback(torch.set_rng_state, torch.get_rng_state())
        stack.callback(torch.set_num_threads, torch.get_num_threads())
        stack.callback(torch.set_float32_matmul_precision, torch.get_float32_matmul_precision())
        stack.callback(_set_handlers, {number: signal.getsignal(number) for number in signal.valid_signals()})
        stack.enter_context(warnings.catch_warnings())
        stack.enter_context(mock.patch.dict(os.environ, environment))  # puts back all that Lightning adds
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        patch.setattr(sys, "argv", argv)
        elsewhere = [entry for entry in sys.path if not Path(entry).is_relative_to(EXAMPLES)]
        patch.setattr(sys, "path", [str(Path(argv[0]).parent), *elsewhere])
        # not CUDA_VISIBLE_DEVICES: CUDA reads it once, and would stay without devices in the tests to come
        patch.setattr(torch.cuda, "is_available", lambda: False)
        patch.setattr(torch.cuda, "device_count", lambda: 0)
        patch.chdir(cwd)
        yield


def _set_handlers(handlers: Mapping[int, Any]) -> None:
    for number, handler in handlers.items():
        if signal.getsignal(number) != handler:
            signal.signal(number, handler)


def _pop_modules_of_recipes() -> dict[str, ModuleType]:
    """Each script puts its own folder on the path, and two folders have a module of one name."""
    folder = str(EXAMPLES) + os.sep
    names = [name for name, module in sys.modules.items() if str(getattr(module, "__file__", "")).startswith(folder)]
    return {name: sys.modules.pop(name) for name in names}
