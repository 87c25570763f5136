"""A trained network as a folder, and back: ``model.safetensors``, ``config.yaml`` and ``README.md``, the model card.

The layout is that of the Hugging Face hub, which reads the card's first lines. Nothing in a folder is unpickled, and
the weights must have the hash that the settings name.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from safetensors.torch import save_file
from torch import Tensor, nn

from fastmri_ufloss.checks import check, require
from fastmri_ufloss.files import atomic_path
from fastmri_ufloss.metrics.paired import bootstrap_interval
from fastmri_ufloss.models import PatchFeatureNet, read_checkpoint
from fastmri_ufloss.models.checkpoints import load_safetensors
from fastmri_ufloss.pl_modules import JointModule, RefinementModule, load_reconstruction
from fastmri_ufloss.pl_modules.adversarial_module import RECONSTRUCTIONS, AdversarialModule
from fastmri_ufloss.pl_modules.mri_module import MriModule

__all__ = ["export_model", "load_pretrained"]

FORMAT_VERSION = 1
WEIGHTS, SETTINGS, CARD = "model.safetensors", "config.yaml", "README.md"
HUB = "hf:"
ADVERSARIAL: dict[str, type[AdversarialModule]] = {kind.__name__: kind for kind in (RefinementModule, JointModule)}
KINDS = (*RECONSTRUCTIONS, *ADVERSARIAL, PatchFeatureNet.__name__)
OF_TRAINING = ("discriminator.", "objective.", "loss.", "metrics.", "score_ufloss.")  # no part of the network
TOLD = (  # of a run's flags, in the card and the settings; none of them is a path
    *("challenge", "mask_type", "center_fractions", "accelerations", "center_size", "elliptical"),
    *("mask_per_volume", "num_maps", "num_virtual_coils", "train_rows", "loss", "normalize_losses", "batch_size"),
    *("max_epochs", "max_steps", "precision", "gradient_clip_val", "seed"),
)


def export_model(run: str | Path, folder: str | Path, *, license_name: str = "", data: str = "") -> Path:
    """Write the network of a run, or of a checkpoint, into a folder; returns the card.

    A run is the folder of a recipe that trains MoDL, RecNet, VarNet, a U-Net, a refinement or joint training, or a
    feature network; its best checkpoint is taken, as in its own test, or the last one where there is no other. Raises
    FileNotFoundError or ValueError if there is none, or it cannot be read.

    Args:
        license_name: of the weights, as the hub names licences; "" for not stated.
        data: what the network was trained on, in words.
    """
    run, folder = Path(run), Path(folder)
    net_file = run / "feature_net.safetensors" if run.is_dir() else run
    if net_file.suffix == ".safetensors" and net_file.is_file():
        net = PatchFeatureNet.load(net_file)
        kind, settings = PatchFeatureNet.__name__, _settings_of_feature_net(net, data)
        more: dict[str, Any] = {}
        weights = net.state_dict()
    else:
        checkpoint = _checkpoint_of(run)
        module = _load_module(checkpoint)
        kind, settings = type(module).__name__, dict(module.hparams)
        stored = read_checkpoint(checkpoint)
        more = {"reconstruction": stored["reconstruction"]} if kind in ADVERSARIAL else {}
        if "MriDataModule" in stored and stored["MriDataModule"].get("num_virtual_coils"):
            more["num_virtual_coils"] = stored["MriDataModule"]["num_virtual_coils"]
        weights = {name: value for name, value in module.state_dict().items() if not name.startswith(OF_TRAINING)}
    run_dir = run if run.is_dir() else run.parent.parent
    training, scores = _flags_of(run_dir), _scores_of(run_dir)
    with atomic_path(folder / WEIGHTS) as temporary:
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}, temporary)
        digest = hashlib.sha256(temporary.read_bytes()).hexdigest()
    config = {
        "format_version": FORMAT_VERSION,
        "kind": kind,
        "settings": settings,
        **more,
        "training": training,
        "license": license_name,
        "data": data,
        "sha256": digest,
        "version": _version(),
    }
    with atomic_path(folder / SETTINGS) as temporary:
        temporary.write_text(yaml.safe_dump(_plain(config), sort_keys=False), encoding="utf-8")
    with atomic_path(folder / CARD) as temporary:
        temporary.write_text(_card(config, scores, sum(w.numel() for w in weights.values())), encoding="utf-8")
    return folder / CARD


def load_pretrained(folder: str | Path) -> nn.Module:
    """The network of a folder that `export_model` wrote, on the CPU and in eval mode.

    It is the Lightning module that was trained, `MoDLModule`, `RecNetModule`, `VarNetModule`, `UnetModule`,
    `RefinementModule` or `JointModule`, whose ``reconstruct`` takes a batch; or a frozen `PatchFeatureNet`. A name
    ``hf:OWNER/NAME`` is a repository of the Hugging Face hub, which is downloaded; without the prefix nothing is.

    Raises:
        FileNotFoundError: if the folder or one of its files is missing.
        ValueError: if a file is of another kind, the hash or the weights do not fit, or the settings are of a newer
            version.
        ImportError: for a name of the hub without the package huggingface_hub (the extra ``hub``).
    """
    path = _download(str(folder).removeprefix(HUB)) if str(folder).startswith(HUB) else Path(folder)
    for name in (SETTINGS, WEIGHTS):
        if not (path / name).is_file():
            hint = f"; a repository of the hub is {HUB}OWNER/NAME" if not path.is_dir() else ""
            raise FileNotFoundError(f"no {name} in {path}: it must be a folder that export_model wrote{hint}")
    config = _read_settings(path / SETTINGS)
    digest = hashlib.sha256((path / WEIGHTS).read_bytes()).hexdigest()
    if digest != config["sha256"]:
        raise ValueError(f"{path / WEIGHTS} must have the hash in {SETTINGS}: one of the two was changed")
    weights = load_safetensors(path / WEIGHTS)
    kind, settings = config["kind"], dict(config["settings"])
    try:
        module = _make(kind, settings, config.get("reconstruction"))
    except (TypeError, KeyError) as error:
        raise ValueError(f"{path / SETTINGS} has settings that are not of {kind}: {error}") from error
    state = module.state_dict()
    left_out = {name: value for name, value in state.items() if name.startswith(OF_TRAINING)}
    wanted = {name: tuple(value.shape) for name, value in state.items() if name not in left_out}
    given = {name: tuple(value.shape) for name, value in weights.items()}
    if differing := sorted(name for name in wanted.keys() | given.keys() if wanted.get(name) != given.get(name)):
        name = differing[0]
        raise ValueError(
            f"{path / WEIGHTS} does not fit the settings: {name} must have shape {wanted.get(name)}, got "
            f"{given.get(name)} (None: no such weight)"
        )
    module.load_state_dict({**left_out, **weights})
    return module.eval().requires_grad_(kind != PatchFeatureNet.__name__)


def _make(kind: str, settings: Mapping[str, Any], reconstruction: Mapping[str, Any] | None) -> nn.Module:
    """A new network."""
    if kind == PatchFeatureNet.__name__:
        return PatchFeatureNet(**settings)
    if kind in RECONSTRUCTIONS:
        return RECONSTRUCTIONS[kind](**settings)
    if reconstruction is None:
        raise KeyError("reconstruction")
    base = RECONSTRUCTIONS[reconstruction["module"]](**reconstruction["settings"])
    return ADVERSARIAL[kind](base, **settings)


def _load_module(checkpoint: Path) -> MriModule:
    names = read_checkpoint(checkpoint)["state_dict"]
    first = {name.partition(".")[0] for name in names}
    if "refinement" in first:
        return RefinementModule.load_from_checkpoint(checkpoint)
    return (
        JointModule.load_from_checkpoint(checkpoint) if "discriminator" in first else load_reconstruction(checkpoint)
    )


def _checkpoint_of(run: Path) -> Path:
    """The checkpoint that the run's own test takes."""
    if not run.is_dir():
        if not run.exists():
            raise FileNotFoundError(f"no run and no checkpoint {run}")
        return run
    best, last = (run / "checkpoints" / f"{name}.ckpt" for name in ("best", "last"))
    if not last.is_file() and not best.is_file():
        raise FileNotFoundError(
            f"no checkpoints/best.ckpt, checkpoints/last.ckpt or feature_net.safetensors in {run}"
        )
    if not best.is_file():
        return last
    is_adversarial = any(name.startswith("discriminator.") for name in read_checkpoint(best)["state_dict"])
    return last if is_adversarial and last.is_file() else best


def _settings_of_feature_net(net: PatchFeatureNet, data: str) -> dict[str, Any]:
    settings = {name: getattr(net, name) for name in ("in_chans", "num_features", "patch_size", "architecture")}
    width = net.width if net.architecture == "narrow" else None
    return {**settings, "width": width, "training_data": net.training_data or data}


def _flags_of(run_dir: Path) -> dict[str, Any]:
    """What the run's config.yaml says of its data and training."""
    file = run_dir / SETTINGS
    if not file.is_file():
        return {}
    flags = yaml.safe_load(file.read_text(encoding="utf-8"))
    check(isinstance(flags, Mapping), str(file), "flags by name", type(flags).__name__)
    return {name: flags[name] for name in TOLD if flags.get(name) is not None}


def _scores_of(run_dir: Path) -> list[dict[str, Any]]:
    """Means over the volumes of the run's test with their intervals, a row for each method."""
    file = run_dir / "scores.json"
    if not file.is_file():
        return []
    try:
        volumes: Sequence[Mapping[str, Any]] = json.loads(file.read_text(encoding="utf-8"))["volumes"]
        methods = list(dict.fromkeys(row["method"] for row in volumes))
        names = [name for name in volumes[0] if name not in ("volume", "method")]
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise ValueError(f"{file} must be the scores of a run, got: {error!r}") from error
    rows = []
    for method in methods:
        row: dict[str, Any] = {"method": method}
        for name in names:
            values = [value for x in volumes if x["method"] == method if (value := x.get(name)) is not None]
            values = [value for value in values if np.isfinite(value)]
            if values:
                low, high = bootstrap_interval(values)
                interval = f" ({low:.4g} to {high:.4g})" if np.isfinite(low) else ""
                row[name] = f"{np.mean(values):.4g}{interval}"
        rows.append({**row, "volumes": sum(x["method"] == method for x in volumes)})
    return rows


def _card(config: Mapping[str, Any], scores: Sequence[Mapping[str, Any]], num_weights: int) -> str:
    """The model card; its head is what the hub reads."""
    kind, training = config["kind"], config["training"]
    name = kind.removesuffix("Module")
    head = {
        "license": config["license"].lower() or "unknown",
        "library_name": "fastmri-ufloss",
        "tags": ["mri", "image-reconstruction", "fastmri"],
    }
    told = {key: " ".join(map(str, value)) if isinstance(value, list) else value for key, value in training.items()}
    lines = [
        f"---\n{yaml.safe_dump(head, sort_keys=False)}---\n",
        f"# {name}\n",
        f"A network of fastmri-ufloss {config['version']}: `{kind}`, {num_weights:,} weights.\n",
        f"- **Trained on:** {config['data'] or 'not stated'}",
        f"- **Training:** {', '.join(f'{key} {value}' for key, value in told.items()) or 'not known'}",
        f"- **Licence of the weights:** {config['license'] or 'not stated'}",
        f"- **SHA-256 of {WEIGHTS}:** `{config['sha256']}`",
        "- **Not for:** a diagnosis. A network is a prior of what it has seen: with other anatomy, coils or sampling "
        "it may be wrong without looking so.\n",
        "## Scores\n",
    ]
    if scores:
        columns = list(dict.fromkeys(key for row in scores for key in row))
        lines += ["Means over the volumes of the run's own test, with 95% intervals by bootstrap over volumes.\n"]
        lines += [f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}"]
        lines += [f"| {' | '.join(str(row.get(column, '')) for column in columns)} |" for row in scores]
    else:
        lines += ["None: the run had no test with a reference."]
    lines += [
        "\n## Load\n",
        "```python\nfrom fastmri_ufloss.export import load_pretrained\n",
        f'network = load_pretrained("FOLDER")  # or "{HUB}OWNER/NAME"\n```\n',
        "The settings are in `config.yaml`; the weights must have the hash above, and nothing is unpickled.",
    ]
    return "\n".join(lines) + "\n"


def _read_settings(file: Path) -> dict[str, Any]:
    try:
        config = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{file} must be YAML, got: {str(error).partition(chr(10))[0]}") from error
    needed = {"format_version": int, "kind": str, "settings": dict, "sha256": str}
    for name, expected in needed.items():
        value = config.get(name) if isinstance(config, dict) else None
        check(isinstance(value, expected), f"{name} in {file}", f"of type {expected.__name__}", repr(value))
    newest = config["format_version"] <= FORMAT_VERSION
    require(
        newest, f"{file} must be of format {FORMAT_VERSION} or older: update fastmri-ufloss", config["format_version"]
    )
    check(config["kind"] in KINDS, f"kind in {file}", f"one of {', '.join(KINDS)}", repr(config["kind"]))
    return dict(config)


def _download(name: str) -> Path:
    """The folder of a repository of the hub, downloaded."""
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise ImportError(
            f"{HUB}{name} needs huggingface_hub ({error}): pip install 'fastmri-ufloss[hub]'"
        ) from error
    return Path(snapshot_download(name, allow_patterns=[WEIGHTS, SETTINGS, CARD]))


def _version() -> str:
    try:
        return version("fastmri-ufloss")
    except PackageNotFoundError:
        return "unknown"


def _plain(value: Any) -> Any:
    """Values that YAML has."""
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, Tensor | np.generic):
        return value.item()
    return value if isinstance(value, str | int | float | bool | None) else str(value)
