"""Loading checkpoints that users name: plain tensors and values only, with errors that say what is wrong."""

import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from fastmri_ufloss.pl_modules.modl_module import MoDLModule
from fastmri_ufloss.pl_modules.recnet_module import RecNetModule
from fastmri_ufloss.pl_modules.sense_module import SenseModule

__all__ = ["load_modl_module", "load_recnet_module", "read_checkpoint", "read_network"]

_Module = TypeVar("_Module", bound=SenseModule)


def read_checkpoint(path: str | Path, *, prefix: str = "") -> dict[str, Any]:
    """Read a Lightning checkpoint with ``weights_only=True``.

    Args:
        path: the file.
        prefix: what some of the names of the weights must start with, such as ``"modl."``.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is no Lightning checkpoint, or one of another model.
    """
    checkpoint = _load(Path(path))
    if not isinstance(checkpoint, Mapping) or "state_dict" not in checkpoint:
        raise ValueError(f"{path} is not a Lightning checkpoint: it has no 'state_dict'")
    names = list(checkpoint["state_dict"])
    if not any(name.startswith(prefix) for name in names):
        raise ValueError(
            f"{path} is a checkpoint of another model: its weights are named {names[:3]} ..., not '{prefix}...'"
        )
    return dict(checkpoint)


def read_network(path: str | Path, *, prefix: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The hyperparameters and the network's weights of a file, with ``weights_only=True``.

    Args:
        path: a Lightning checkpoint, or the state dict of the network alone, as fastMRI publishes its own; it has
            no hyperparameters.
        prefix: of the names of the network's weights in a Lightning checkpoint, such as ``"varnet."``.

    Raises:
        FileNotFoundError, ValueError: see `read_checkpoint`.
    """
    content = _load(Path(path))
    if isinstance(content, Mapping) and content and all(isinstance(value, Tensor) for value in content.values()):
        return {}, dict(content)
    checkpoint = read_checkpoint(path, prefix=prefix)
    weights = checkpoint["state_dict"].items()
    network = {name.removeprefix(prefix): weight for name, weight in weights if name.startswith(prefix)}
    return dict(checkpoint.get("hyper_parameters", {})), network


def load_modl_module(path: str | Path, **options: Any) -> MoDLModule:
    """The `MoDLModule` of a checkpoint.

    Args:
        path: a checkpoint that training wrote.
        **options: further arguments of `MoDLModule`, such as ``loss`` or ``score_feature_net``.

    Raises:
        FileNotFoundError, ValueError: see `read_checkpoint`.
    """
    return _load_sense_module(MoDLModule, "modl", path, options)


def load_recnet_module(path: str | Path, **options: Any) -> RecNetModule:
    """The `RecNetModule` of a checkpoint, see `load_modl_module`."""
    return _load_sense_module(RecNetModule, "recnet", path, options)


def _load_sense_module(kind: type[_Module], network: str, path: str | Path, options: Mapping[str, Any]) -> _Module:
    settings, weights = read_network(path, prefix=f"{network}.")
    module = kind(**{**settings, **options})
    try:
        # the network's weights only: a loss may have buffers of its own, which the module to come need not have
        module.network.load_state_dict(weights)
    except RuntimeError as error:
        raise ValueError(f"{path} does not fit its own settings {settings} ({error})") from error
    return module


def _load(path: Path) -> Any:
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint {path}")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (
        pickle.UnpicklingError,
        zipfile.BadZipFile,
        EOFError,
        RuntimeError,
        KeyError,
        ValueError,
    ) as error:
        raise ValueError(f"{path} is not a checkpoint of plain tensors and values") from error
