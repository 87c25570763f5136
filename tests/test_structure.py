"""Imports run one way through the core, from mri to pl_modules; leaves stand on the core and not on each other."""

import ast
from pathlib import Path

import pytest
from helpers import ROOT

PACKAGE = ROOT / "fastmri_ufloss"
ROOT_MODULES = {"checks", "distributed", "files", "lazy", "workers"}
CORE = {  # what each room of the core may import
    "mri": set(),
    "data": {"mri"},
    "models": {"mri"},
    "losses": {"mri"},
    "metrics": {"mri", "data", "models", "losses"},
    "pl_modules": {"mri", "data", "models", "losses", "metrics"},
}
LEAVES = {  # what a leaf may import of the other leaves
    "simulation": set(),
    "convert": {"simulation"},
    "baselines": set(),
    "report": set(),
    "export": set(),
}
ALLOWED = {
    **{name: set() for name in ROOT_MODULES},
    **{room: rooms | ROOT_MODULES for room, rooms in CORE.items()},
    **{room: rooms | set(CORE) | ROOT_MODULES for room, rooms in LEAVES.items()},
    "__init__": set(CORE) | ROOT_MODULES,
}


def imported_modules(file: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            names.add(node.module or "")
    return names


def room_of(file: Path) -> str:
    parts = file.relative_to(PACKAGE).with_suffix("").parts
    return parts[0]


@pytest.mark.parametrize("file", sorted(PACKAGE.rglob("*.py")), ids=lambda file: str(file.relative_to(PACKAGE)))
def test_imports_run_one_way(file: Path) -> None:
    room = room_of(file)
    for name in imported_modules(file):
        if name.startswith("fastmri_ufloss."):
            other = name.split(".")[1]
            assert other == room or other in ALLOWED[room], f"{file} must not import {name}"
        if room != "pl_modules":
            assert name.split(".")[0] not in ("pytorch_lightning", "lightning"), f"{file} must not import {name}"
            assert not name.startswith("fastmri.pl_modules"), f"{file} must not import {name}"


def test_no_module_imports_itself_through_others() -> None:
    modules = {
        ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): file
        for file in PACKAGE.rglob("*.py")
    }
    # names that a package gives when it is asked are no imports of the package
    imports = {
        name: set() if file.name == "__init__.py" else imported_modules(file) & modules.keys()
        for name, file in modules.items()
    }
    while imports:
        leaves = [name for name, others in imports.items() if not others & imports.keys()]
        assert leaves, f"a circle of imports: {sorted(imports)}"
        for name in leaves:
            del imports[name]


REPORT = {"figures/*.py": {"scoring", "page"}, "scoring.py": {"page"}}  # what a room of the report must not know


@pytest.mark.parametrize("room", REPORT)
def test_the_rooms_of_the_report_run_one_way(room: str) -> None:
    files = list((PACKAGE / "report").glob(room))
    assert files
    for file in files:
        others = {name.split(".")[2] for name in imported_modules(file) if name.startswith("fastmri_ufloss.report.")}
        assert not others & {*REPORT[room], "document"}, file


def test_library_never_imports_scripts() -> None:
    for file in PACKAGE.rglob("*.py"):
        # only the commands of the package, ``python -m``, have arguments
        scripts = {"fastmri_examples", "recipe", "jsonargparse"} | (
            set() if file.name == "__main__.py" else {"argparse"}
        )
        for name in imported_modules(file):
            assert name.split(".")[0] not in scripts, f"{file}: {name}"


@pytest.mark.parametrize("folder", ["fastmri_ufloss", "fastmri_examples", "benchmarks"])
def test_torch_load_reads_weights_only(folder: str) -> None:
    for file in (ROOT / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load":
                assert "weights_only=True" in ast.unparse(node), f"{file}:{node.lineno}"
