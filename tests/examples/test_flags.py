"""The flags of each recipe: those of ``flags.json``, which were written down before the recipes shared one module."""

import argparse
import json
import runpy
import sys
import typing
from pathlib import Path
from typing import Any

import jsonargparse
import pytest
import yaml
from helpers import EXAMPLES, run_recipe

FLAGS = json.loads(Path(__file__).with_name("flags.json").read_text())


class ParsedError(Exception):
    """A script has come to its flags."""


def parser_of(script: str, monkeypatch: pytest.MonkeyPatch) -> jsonargparse.ArgumentParser:
    """The parser with which a script reads its flags."""
    parsers = []

    def parse_args(self: jsonargparse.ArgumentParser, *_: Any, **__: Any) -> None:
        parsers.append(self)
        raise ParsedError

    path = EXAMPLES / script
    monkeypatch.setattr(jsonargparse.ArgumentParser, "parse_args", parse_args)
    monkeypatch.setattr(sys, "argv", [str(path)])
    monkeypatch.setattr(sys, "path", [str(path.parent), *sys.path])
    modules = set(sys.modules)
    try:
        with pytest.raises(ParsedError):
            runpy.run_path(str(path), run_name="__main__")
    finally:
        for name in set(sys.modules) - modules:
            if str(getattr(sys.modules[name], "__file__", "")).startswith(str(EXAMPLES)):
                del sys.modules[name]
    return parsers[0]


def describe(action: argparse.Action) -> dict[str, Any]:
    """A flag as ``flags.json`` has it, but for its default."""
    # jsonargparse keeps the choices of a Literal to itself
    choices = action.choices or typing.get_args(getattr(action, "_typehint", None))
    described: dict[str, Any] = {"choices": list(choices)} if choices and isinstance(choices[0], str) else {}
    if any(option.startswith("--no-") for option in action.option_strings):
        described["nargs"] = "--no"
    elif action.nargs is not None:
        described["nargs"] = action.nargs
    return described | ({"required": True} if action.required else {})


@pytest.mark.parametrize("script", FLAGS)
def test_flags_are_those_of_before(script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    parser = parser_of(script, monkeypatch)
    actions = {action.option_strings[0].lstrip("-"): action for action in parser._actions if action.option_strings}
    assert actions.pop("h")
    assert set(actions) - set(FLAGS[script]) == {"config", "print_config"}
    assert {name: describe(actions[name]) for name in FLAGS[script]} == {
        name: {key: value for key, value in flag.items() if key != "default"} for name, flag in FLAGS[script].items()
    }
    for name, flag in FLAGS[script].items():
        assert "required" in flag or actions[name].default == flag["default"], name
    assert parser.format_help()


@pytest.mark.parametrize("script", FLAGS)
def test_each_flag_takes_what_it_took(script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    parser = parser_of(script, monkeypatch)
    monkeypatch.undo()
    typed = [text for name, flag in FLAGS[script].items() for text in text_of(name, flag)]
    args = parser.parse_args(typed)
    for name, flag in FLAGS[script].items():
        if "choices" in flag:
            assert args[name] == ([*flag["choices"]] if "nargs" in flag else flag["choices"][-1])
        elif flag.get("nargs") == "--no":
            assert args[name] is (not flag["default"])
        elif isinstance(flag.get("default"), int | float):
            assert type(args[name]) is type(flag["default"]) or name == "normalize_losses"
    # the same from a file
    plain = yaml.safe_load(parser.dump(args, skip_unset=False))
    assert parser.parse_object(plain).as_dict() == {**args.as_dict(), "config": None}


def text_of(name: str, flag: dict[str, Any]) -> list[str]:
    """A flag as it is typed, with another value than its default."""
    nargs, default = flag.get("nargs"), flag.get("default")
    if nargs == "--no":
        return [f"--no-{name}" if default else f"--{name}"]
    if nargs == 0:
        return [f"--{name}"]
    if "choices" in flag:
        return [f"--{name}", *(flag["choices"] if nargs else flag["choices"][-1:])]
    value = default[0] if isinstance(default, list) and default else default
    if isinstance(value, int | float):
        return [f"--{name}", *[str(value + 1)] * (2 if nargs else 1)]
    return [f"--{name}", *["3"] * (nargs if isinstance(nargs, int) else 1)]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--chans", "many"], "chans"),
        (["--denoiser", "vgg"], "denoiser"),
        (["--accelerations", "fast"], "accelerations"),
        (["--nothing", "1"], "nothing"),
        (["--config", "nowhere.yaml"], "nowhere.yaml"),
    ],
)
def test_a_flag_that_cannot_be_read_is_named(flags: list[str], message: str, tmp_path: Path) -> None:
    error = run_recipe("modl_ufloss/train.py", *flags, cwd=tmp_path, fails=True).stderr
    last = error.splitlines()[-1]
    assert last.startswith("error: ") and message in last
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("script", ["modl_ufloss/train.py", "adversarial_refinement/train_refinement.py"])
def test_numbers_out_of_range_are_refused_when_they_are_read(script: str, tmp_path: Path) -> None:
    numbers = [
        name
        for name, flag in FLAGS[script].items()
        if isinstance(flag.get("default"), int | float) and not isinstance(flag["default"], bool)
    ]
    assert len(numbers) > 15
    for name in numbers:
        printed = run_recipe(script, f"--{name}", -2, cwd=tmp_path, fails=True).stderr
        assert name in printed and "-2" in printed
    assert not list(tmp_path.iterdir())  # no demo data either


@pytest.mark.parametrize(
    ("script", "flags", "problem"),
    [
        ("varnet/train.py", "--num_cascades 0", "num_cascades must be at least 1"),
        ("varnet/train.py", "--num_cascades 1000000000", "num_cascades must be from 0 to 4096"),
        ("varnet/train.py", "--pools 20", "GB of this machine's memory"),
        ("unet/train.py", "--chans 4000 --num_pool_layers 8", "GB of this machine's memory"),
        ("unet/train.py", "--in_chans 2", "in_chans must be at most 1"),
        ("unet/train.py", "--lr 0", "lr must be above 0"),
        ("modl_ufloss/train.py", "--num_unrolls 1000000000", "num_unrolls must be from 0 to 4096"),
        ("modl_ufloss/train.py", "--accelerations 4 0", "accelerations must be at least 1"),
        ("modl_ufloss/train.py", "--center_fractions 1", "center fraction of 1.0"),
        ("modl_ufloss/train.py", "--accelerator cpu --devices 4096", "--devices must be at most"),
        (
            "varnet/train.py",
            "--devices both",
            "--devices must be 'auto', a number, or numbers such as 0,1, got 'both'",
        ),
    ],
)
def test_absurd_networks_and_machines_are_refused(script: str, flags: str, problem: str, tmp_path: Path) -> None:
    assert problem in run_recipe(script, *flags.split(), cwd=tmp_path, fails=True).stderr
    assert not list(tmp_path.glob("**/*.h5"))
