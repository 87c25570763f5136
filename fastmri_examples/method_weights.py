"""The flag for weights of classical methods that are given by hand."""

import argparse


def add_weights_arg(parser: argparse.ArgumentParser, *, default: str = "the methods' own") -> None:
    parser.add_argument(
        "--weights",
        nargs="+",
        metavar="METHOD=VALUE",
        help=f"regularisation weights by hand, such as pics_wavelet=0.002 (default: {default})",
    )


def read_weights(args: argparse.Namespace) -> dict[str, float]:
    """The weights that the user typed, by method.

    Raises:
        ValueError: if one is no METHOD=VALUE, or a method comes twice.
    """
    weights: dict[str, float] = {}
    for text in getattr(args, "weights", None) or []:
        name, _, value = text.partition("=")
        try:
            weight = float(value)
        except ValueError:
            raise ValueError(f"--weights must be of the form METHOD=VALUE, got {text!r}") from None
        if name in weights:
            raise ValueError(f"--weights must have each method once, got {name} twice")
        weights[name] = weight
    return weights
