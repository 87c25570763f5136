"""Rooms give their public names when they are asked for, and load nothing else."""

import importlib
import subprocess
import sys
from types import ModuleType

import pytest

HEAVY = {"sigpy", "h5py", "pytorch_lightning", "torchvision", "torchmetrics", "fastmri", "monai", "matplotlib"}


@pytest.mark.parametrize("room", ["", ".mri", ".models", ".losses", ".data", ".pl_modules"])
def test_public_names_are_objects_of_the_room(room: str) -> None:
    package = importlib.import_module(f"fastmri_ufloss{room}")
    for name in package.__all__:
        # twice: a module of the same name would take its place once it is loaded
        assert not isinstance(getattr(package, name), ModuleType), name
        assert not isinstance(getattr(package, name), ModuleType), name
        scope: dict[str, object] = {}
        exec(f"from fastmri_ufloss{room} import {name}", scope)
        assert scope[name] is getattr(package, name)
    with pytest.raises(AttributeError, match=f"module 'fastmri_ufloss{room}' has no attribute 'nothing'"):
        _ = package.nothing


def loaded_by(statement: str) -> set[str]:
    code = f"import sys; {statement}; print(*sys.modules)"
    return set(
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    )


@pytest.mark.parametrize(
    "statement", ["from fastmri_ufloss.losses import UFLoss", "from fastmri_ufloss import make_loss"]
)
def test_a_loss_loads_few_files(statement: str) -> None:
    names = loaded_by(statement)
    assert len([name for name in names if name.split(".")[0] == "fastmri_ufloss"]) <= 12
    assert not names & HEAVY


def test_a_model_loads_no_lightning_and_no_data() -> None:
    names = loaded_by("from fastmri_ufloss.models import MoDL, Segmenter")
    assert not names & {"pytorch_lightning", "monai", "sigpy", "torchmetrics", "fastmri_ufloss.data"}
