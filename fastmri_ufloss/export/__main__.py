"""Write a trained network as a folder that can be handed on: safetensors, settings, and a model card in Markdown.

    python -m fastmri_ufloss.export RUN --output_path FOLDER --license MIT --data "fastMRI knees, 34,742 slices"

RUN is the folder of a training recipe, or a checkpoint of one. The Hugging Face hub takes FOLDER as it is, and
``fastmri_ufloss.export.load_pretrained(FOLDER)`` gives the network, on any machine, without reading a pickle.
"""

import argparse
import sys
from pathlib import Path

from fastmri_ufloss.export.model_folder import export_model


def main() -> str | None:
    """Returns the error, if there is one."""
    parser = argparse.ArgumentParser(
        prog="python -m fastmri_ufloss.export",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="folder of a run, or a checkpoint")
    parser.add_argument("--output_path", type=Path, required=True, metavar="FOLDER")
    words = "of the weights, as the hub names it: mit, apache-2.0, cc-by-4.0 (default: not stated)"
    parser.add_argument("--license", default="", metavar="NAME", help=words)
    words = "what the network was trained on, in words, for the card (default: not stated)"
    parser.add_argument("--data", default="", metavar="TEXT", help=words)
    args = parser.parse_args()
    try:
        card = export_model(args.run, args.output_path, license_name=args.license, data=args.data)
    except (ValueError, OSError) as error:
        return f"error: {error}"
    print(f"Network: {args.output_path}\nCard: {card}")
    return None


if __name__ == "__main__":
    sys.exit(main())
