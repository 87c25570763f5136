"""`helpers.run_recipe` itself: a script sees what a process of its own would, and leaves nothing behind."""

import contextlib
import os
import random
import signal
import sys
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any

import helpers
import numpy as np
import pytest
import pytorch_lightning  # noqa: F401  its import, once for all tests, is no script's doing
import torch
from helpers import run_process, run_recipe

SEEN = """
import os, sys
import own_module
folders = [entry for entry in sys.path if os.path.isfile(os.path.join(entry, "own_module.py"))]
print(own_module.VALUE, sys.argv, folders, os.getcwd(), __name__)
if "fail" in sys.argv:
    sys.exit("error: as asked")
"""
CHANGES = """
import os, random, signal, sys, warnings
import own_module
import numpy, torch
sys.path.append("more")
sys.argv.append("more")
os.environ["PL_GLOBAL_SEED"] = "1"
warnings.filterwarnings("ignore", message="nothing")
random.seed(1), numpy.random.seed(1), torch.manual_seed(1)
torch.set_float32_matmul_precision("medium")
torch.set_num_threads(torch.get_num_threads() + 1)
signal.signal(signal.SIGTERM, signal.SIG_IGN)
os.chdir("/")
assert not torch.cuda.is_available() and not torch.cuda.device_count()
if "fail" in sys.argv:
    sys.exit(1)
if "raise" in sys.argv:
    raise RuntimeError("as asked")
"""


def state() -> dict[str, Any]:
    """What the script `CHANGES` changes."""
    return {
        "environment": dict(os.environ),
        "path": list(sys.path),
        "arguments": list(sys.argv),
        "folder": os.getcwd(),
        "warnings": list(warnings.filters),
        "output": (sys.stdout, sys.stderr),
        "random": (random.getstate(), str(np.random.get_state()), torch.get_rng_state().tolist()),
        "torch": (torch.get_float32_matmul_precision(), torch.get_num_threads()),
        "cuda": (torch.cuda.is_available, torch.cuda.device_count),
        "signal": signal.getsignal(signal.SIGTERM),
        "modules": (sys.modules.get("own_module"), sys.modules["__main__"]),
    }


@pytest.fixture
def examples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two folders that each have a module of the same name."""
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "sees.py").write_text(SEEN)
        (tmp_path / name / "changes.py").write_text(CHANGES)
        (tmp_path / name / "own_module.py").write_text(f"VALUE = 'of {name}'")
    (tmp_path / "work").mkdir()
    monkeypatch.setattr(helpers, "EXAMPLES", tmp_path)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(sys, "path", [str(tmp_path / "b"), *sys.path])
    imported = ModuleType("own_module")  # by another test
    imported.__file__ = str(tmp_path / "b" / "own_module.py")
    monkeypatch.setitem(sys.modules, "own_module", imported)
    return tmp_path


@pytest.mark.parametrize("ending", ["well", "fail", "raise"])
def test_nothing_is_left_behind(examples: Path, ending: str) -> None:
    before = state()
    with pytest.raises(RuntimeError, match="as asked") if ending == "raise" else contextlib.nullcontext():
        run_recipe("a/changes.py", ending, cwd=examples / "work", fails=ending == "fail")
    assert state() == before


@pytest.mark.parametrize("arguments", [("a/sees.py", 1), ("b/sees.py", 2, "fail")])
def test_it_is_as_in_a_process(examples: Path, arguments: tuple[Any, ...]) -> None:
    options: dict[str, Any] = {"cwd": examples / "work", "fails": "fail" in arguments}
    assert run_recipe(*arguments, **options) == run_process(*arguments, **options)


def test_an_unexpected_ending_is_noticed(examples: Path) -> None:
    with pytest.raises(AssertionError):
        run_recipe("a/sees.py", cwd=examples / "work", fails=True)
    with pytest.raises(AssertionError, match="as asked"):
        run_recipe("a/sees.py", "fail", cwd=examples / "work")
