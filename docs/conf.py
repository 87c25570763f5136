"""The documentation site: ``sphinx-build -W docs site``. Notebooks are executed, warnings are errors."""

import os
import re
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml

project = "fastmri-ufloss"
author = "the fastmri-ufloss contributors"
copyright = author
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
html_theme = "furo"
html_math_renderer = "mathml"
html_title = "fastmri-ufloss"
exclude_patterns = ["jupyter_execute"]
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
nb_execution_mode = os.environ.get("FASTMRI_UFLOSS_NOTEBOOKS", "force")  # "off" skips them
nb_execution_timeout = 600
nb_execution_raise_on_error = True
autodoc_inherit_docstrings = False
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
napoleon_google_docstring = True
suppress_warnings = ["myst.header"]
if nb_execution_mode == "off":
    suppress_warnings.append("myst-nb.lexer")  # which a notebook tells when it runs

REPOSITORY = Path(__file__).parent.parent
SECTION = re.compile(r"(Args|Raises|Returns|Yields|Attributes):$")


def link_sources(app: Any, name: str, content: list[str]) -> None:
    """Links to files of the repository, which are no pages, become text; measurements have a page of their own."""
    text = content[0].replace("../benchmarks/README.md", "measured.md").replace("(../docs/", "(")
    text = re.sub(r"\[(`[^`]+`)\]\(\.\./[^)]+\)", r"\1", text)
    content[0] = re.sub(r"\[([^\]]+)\]\(\.\./[^)]+\)", r"\1", text)


def plain_docstring(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Docstrings are plain text: bars and stars mean themselves, and what is indented is shown as it stands."""
    result: list[str] = []
    section, literal = False, False
    for number, line in enumerate(lines):
        indented = line.startswith("    ")
        if SECTION.match(line):
            section = True
        if indented and not section:
            if not literal and number and not lines[number - 1].strip():
                if not result or not result[-1].rstrip().endswith("::"):
                    above = next((i for i in range(len(result) - 1, -1, -1) if result[i].strip()), None)
                    if above is None or not result[above].rstrip().endswith("::"):
                        result += ["::", ""]
                literal = True
        elif line.strip():
            literal = False
        if not literal:
            stars = re.match(r"\s*\*\*\w+", line)  # **kwargs: of a section
            line = line.replace("|", r"\|")
            line = line if stars else re.sub(r"(?<![\\*])\*(?!\*)", r"\*", line)
            line = re.sub(r"(\w)_(?=[\s,;:.)]|$)", r"\1\_", line) if "`" not in line else line
        result.append(line)
    lines[:] = result


def show_math(translator: Any, node: Any) -> None:
    """Equations as MathML, which browsers draw without a script from elsewhere."""
    mathml = tex2mathml(node.astext(), as_block=node.tagname == "math_block")
    translator.body.append(f"<p>{mathml}</p>" if node.tagname == "math_block" else mathml)
    raise nodes.SkipNode


def setup(app: Any) -> None:
    app.add_html_math_renderer("mathml", inline_renderers=(show_math, None), block_renderers=(show_math, None))
    app.connect("source-read", link_sources)
    app.connect("autodoc-process-docstring", plain_docstring, priority=400)
