"""Tests of the architecture: import order, file sizes, forbidden patterns, light imports on the command line."""

from __future__ import annotations

import ast
import configparser
import re
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parent.parent
# A package imports only from groups before its own, and from itself.
ORDER = [
    {"schema"},
    {"support"},
    {"io", "metrics"},
    {"fingerprint", "models"},
    {"weights"},
    {"planning"},
    {"preprocessing"},
    {"data", "inference"},
    {"training"},
    {"card"},
    {"prediction"},
    {"evaluation"},
    {"explanation", "omnimodel", "comparison", "audit"},
    {"runner"},
    {"study", "selection"},
    {"api"},
    {"cli"},
]
RANK = {package: rank for rank, group in enumerate(ORDER) for package in group}
# dataset_conversion is not part of the pipeline.
CONVERSION_MAY_IMPORT = {"schema", "support", "io", "fingerprint"}
MODULES = sorted([*REPOSITORY.glob("autoseg/**/*.py"), *REPOSITORY.glob("dataset_conversion/**/*.py")])
COMMANDS = sorted(path.stem for path in (REPOSITORY / "autoseg/cli").glob("*.py") if not path.stem.startswith("_"))
LONGEST_FILE, LONGEST_FUNCTION = 450, 70
# Copied into exported folders as it is, and run there without autoseg: one file, which prints and ends as a command does.
PROGRAM, LONGEST_PROGRAM = "autoseg.prediction.standalone.run", 725
# Private metaphors that a reader would have to ask about. The field has words: package, pipeline, command line, resume.
METAPHORS = re.compile(r"\b(house|streets?|doorways?|rooms?|gone on with)\b", re.IGNORECASE)
# Space, as in "room for one more image".
PLAIN_MEANING = re.compile(r"\b(room for|room in the budget)\b", re.IGNORECASE)
MOST_POSITIONAL_FIELDS, MOST_POSITIONAL_ARGUMENTS = 4, 6


def name_of(path: Path) -> str:
    parts = path.relative_to(REPOSITORY).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def package_of(module: str) -> str:
    """autoseg.training.loop -> training; autoseg -> ''; dataset_conversion.x -> dataset_conversion."""
    parts = module.split(".")
    if parts[0] != "autoseg":
        return parts[0]
    return parts[1] if len(parts) > 1 else ""


def imports(tree: ast.AST) -> Iterator[str]:
    """Our own modules this one imports, wherever in the file."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


TREES = {name_of(path): ast.parse(path.read_text(encoding="utf-8")) for path in MODULES}
OURS = {name: {module for module in imports(tree) if module in TREES and module != name} for name, tree in TREES.items()}


def test_packages_import_only_from_earlier_ones() -> None:
    wrong = []
    for name, imported in OURS.items():
        package = package_of(name)
        for other in map(package_of, imported):
            if not other or other == package:
                continue
            if package == "dataset_conversion":
                allowed = other in CONVERSION_MAY_IMPORT
            elif other == "dataset_conversion":
                allowed = package in ("cli", "api")
            else:
                allowed = RANK[other] < RANK[package]
            if not allowed:
                wrong.append(f"{name} imports from {other}")
    assert not wrong, "\n".join(sorted(set(wrong)))


def test_every_package_is_in_the_import_order() -> None:
    packages = {package_of(name) for name in TREES} - {"", "dataset_conversion"}
    assert packages <= set(RANK)


def test_no_import_cycles() -> None:
    # A package's __init__ imports from its modules, never the reverse.
    TopologicalSorter(OURS).prepare()


def test_no_packages_for_leftovers() -> None:
    leftovers = {"utils", "util", "helpers", "helper", "common", "misc"}
    assert not [name for name in TREES if leftovers & set(name.split("."))]


def test_no_main_blocks() -> None:
    blocks = [
        name
        for name, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "__name__" in ast.unparse(node.test) and not name.endswith("__main__")
    ]
    assert not set(blocks) - {PROGRAM}


def test_environment_is_read_in_one_place() -> None:
    readers = {
        name
        for name, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and ast.unparse(node) in ("os.environ", "os.getenv", "os.putenv")
    }
    assert {name for name in readers if package_of(name) != "cli"} <= {"autoseg.support.workspace"}


def test_only_the_command_line_prints() -> None:
    printers = {
        name
        for name, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    }
    assert not {name for name in printers if package_of(name) != "cli"} - {PROGRAM}


# Calls that end or change the calling program -> the modules that may use them.
PROCESS_WIDE = {
    "SystemExit": {"autoseg.training.graceful_shutdown"},
    "sys.exit": {PROGRAM},
    "os._exit": set(),
    "os.abort": set(),
    "os.chdir": set(),
    "atexit.register": set(),
    "logging.basicConfig": set(),
    "signal.signal": {"autoseg.training.graceful_shutdown", "autoseg.support.parallel", "autoseg.support.interrupts"},
    "warnings.filterwarnings": set(),
}


def test_library_does_not_change_the_calling_program() -> None:
    for name, tree in TREES.items():
        if package_of(name) == "cli":
            continue
        for node in ast.walk(tree):
            what = node.func if isinstance(node, ast.Call) else node.exc if isinstance(node, ast.Raise) and node.exc else None
            used = ast.unparse(what) if what is not None else ""
            assert name in PROCESS_WIDE.get(used, {name}), f"{name}:{getattr(node, 'lineno', 0)} uses {used}"


def test_no_swallowed_errors_and_no_unsafe_loading() -> None:
    for name, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ExceptHandler):
                assert not (len(node.body) == 1 and isinstance(node.body[0], ast.Pass)), f"{name}:{node.lineno}"
                assert node.type is not None, f"{name}:{node.lineno} catches everything"
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load":
                safe = [k for k in node.keywords if k.arg == "weights_only" and ast.unparse(k.value) == "True"]
                assert safe, f"{name}:{node.lineno} loads without weights_only=True"


def test_library_changes_no_settings_of_opencv_or_pillow() -> None:
    """They apply to the process. Only our own worker processes may change them."""
    settings = {"setNumThreads", "setLogLevel", "MAX_IMAGE_PIXELS"}
    changers = {
        name
        for name, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and node.attr in settings
    }
    assert changers <= {"autoseg.support.parallel"}


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_files_and_functions_are_short(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= (LONGEST_PROGRAM if name_of(path) == PROGRAM else LONGEST_FILE)
    for node in ast.walk(TREES[name_of(path)]):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            # A docstring that explains every parameter does not make a function harder to read.
            length = node.end_lineno - node.lineno - len((ast.get_docstring(node, clean=False) or "").splitlines())
            assert length < LONGEST_FUNCTION, f"{node.name} is {length} long"


def test_private_metaphors_are_gone() -> None:
    paths = [
        path
        for folder in ("autoseg", "dataset_conversion", "tests", "benchmarks")
        for path in (REPOSITORY / folder).rglob("*.py")
    ]
    paths += [REPOSITORY / "README.md", *(REPOSITORY / "documentation").glob("*.md")]
    assert len(paths) > 300
    lines = [
        f"{path.relative_to(REPOSITORY)}:{number}: {line.strip()}"
        for path in sorted(set(paths) - {Path(__file__)})
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if METAPHORS.search(PLAIN_MEANING.sub("", line))
    ]
    assert not lines, "\n".join(lines)


def dataclass_decorator(node: ast.ClassDef) -> ast.expr | None:
    names = {"dataclass", "dataclasses.dataclass"}
    return next((one for one in node.decorator_list if ast.unparse(one).partition("(")[0] in names), None)


def is_keyword_only(decorator: ast.expr) -> bool:
    return isinstance(decorator, ast.Call) and any(
        one.arg == "kw_only" and ast.unparse(one.value) == "True" for one in decorator.keywords
    )


def test_dataclasses_of_more_than_four_fields_are_keyword_only() -> None:
    """A reader cannot check `ClassScore(3, 1, 2, 0.5, 0.4, ...)`."""
    wrong = []
    for name, tree in TREES.items():
        for node in ast.walk(tree):
            decorator = dataclass_decorator(node) if isinstance(node, ast.ClassDef) else None
            if decorator is None or is_keyword_only(decorator):
                continue
            assert isinstance(node, ast.ClassDef)
            annotated = [ast.unparse(one.annotation) for one in node.body if isinstance(one, ast.AnnAssign)]
            fields = [one for one in annotated if "ClassVar" not in one]
            if len(fields) > MOST_POSITIONAL_FIELDS:
                wrong.append(f"{name}.{node.name} has {len(fields)} fields: add kw_only=True")
    assert not wrong, "\n".join(wrong)


def test_no_call_of_ours_passes_seven_positional_arguments() -> None:
    defined = (ast.ClassDef, ast.FunctionDef)
    wrong = []
    for name, tree in TREES.items():
        ours = {node.name for node in ast.walk(tree) if isinstance(node, defined)}
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module and package_of(node.module) in {*RANK, "dataset_conversion"}:
                ours |= {alias.asname or alias.name for alias in node.names}
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call) or len(node.args) <= MOST_POSITIONAL_ARGUMENTS:
                continue
            called = ast.unparse(node.func)
            # torch.autograd.Function.apply takes no keywords.
            if called.partition(".")[0] in ours and not called.endswith(".apply"):
                wrong.append(f"{name}:{node.lineno} calls {called} with {len(node.args)} positional arguments")
    assert not wrong, "\n".join(wrong)


def test_every_command_is_installed() -> None:
    config = configparser.ConfigParser()
    config.read(REPOSITORY / "setup.cfg")
    scripts = config["options.entry_points"]["console_scripts"].split("\n")
    installed = {line.split("=")[0].strip(): line.split("=")[1].strip() for line in scripts if line}
    assert installed == {f"autoseg_{name}": f"autoseg.cli.{name}:main" for name in COMMANDS if name != "entry"}


@pytest.mark.parametrize("module", ["autoseg", *(f"autoseg.cli.{name}" for name in COMMANDS)])
def test_help_imports_no_heavy_packages(module: str) -> None:
    """`--help` must not import torch and the like."""
    code = f"""
import sys, importlib
module = importlib.import_module({module!r})
if hasattr(module, "main"):
    sys.argv = [{module!r}, "--help"]
    try:
        module.main()
    except SystemExit as leaving:
        assert not leaving.code, leaving.code
heavy = {{"torch", "numpy", "scipy", "cv2", "matplotlib", "SimpleITK", "sklearn", "timm", "pandas"}} & set(sys.modules)
assert not heavy, heavy
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_training_does_not_import_timm_by_itself() -> None:
    """timm and torchvision take half a second: only networks that need them import them."""
    code = "import sys, autoseg.training.trainer; assert not {'timm', 'torchvision'} & set(sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
