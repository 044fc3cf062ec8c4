"""The map of the house, kept: data flows one way through the rooms, and what is heavy stays out of the doorway."""

from __future__ import annotations

import ast
import configparser
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parent.parent
# A room imports only from groups before its own, and from itself.
ORDER = [
    {"schema"},
    {"support"},
    {"io", "metrics"},
    {"fingerprint", "models"},
    {"planning"},
    {"preprocessing"},
    {"data", "inference"},
    {"training"},
    {"prediction"},
    {"evaluation"},
    {"explanation", "omnimodel", "comparison", "audit"},
    {"runner"},
    {"api"},
    {"cli"},
]
RANK = {room: rank for rank, group in enumerate(ORDER) for room in group}
# dataset_conversion stands beside the street.
CONVERSION_MAY_IMPORT = {"schema", "support", "io", "fingerprint"}
MODULES = sorted([*REPOSITORY.glob("autoseg/**/*.py"), *REPOSITORY.glob("dataset_conversion/**/*.py")])
COMMANDS = sorted(path.stem for path in (REPOSITORY / "autoseg/cli").glob("*.py") if not path.stem.startswith("_"))
LONGEST_FILE, LONGEST_FUNCTION = 450, 70
MOST_POSITIONAL_FIELDS, MOST_POSITIONAL_ARGUMENTS = 4, 6


def name_of(path: Path) -> str:
    parts = path.relative_to(REPOSITORY).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room_of(module: str) -> str:
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
OURS = {
    name: {found for found in imports(tree) if found in TREES and found != name} for name, tree in TREES.items()
}


def test_rooms_import_only_from_their_left() -> None:
    wrong = []
    for name, found in OURS.items():
        room = room_of(name)
        for other in map(room_of, found):
            if not other or other == room:
                continue
            if room == "dataset_conversion":
                allowed = other in CONVERSION_MAY_IMPORT
            elif other == "dataset_conversion":
                allowed = room in ("cli", "api")
            else:
                allowed = RANK[other] < RANK[room]
            if not allowed:
                wrong.append(f"{name} imports from {other}")
    assert not wrong, "\n".join(sorted(set(wrong)))


def test_every_room_has_its_place_in_the_order() -> None:
    rooms = {room_of(name) for name in TREES} - {"", "dataset_conversion"}
    assert rooms <= set(RANK)


def test_no_import_cycles() -> None:
    # A package's __init__ gathers names of its modules; the modules never import from it.
    TopologicalSorter(OURS).prepare()


def test_no_rooms_for_leftovers() -> None:
    leftovers = {"utils", "util", "helpers", "helper", "common", "misc"}
    assert not [name for name in TREES if leftovers & set(name.split("."))]


def test_no_scratch_blocks() -> None:
    blocks = [
        name
        for name, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "__name__" in ast.unparse(node.test) and not name.endswith("__main__")
    ]
    assert not blocks


def test_environment_is_read_in_one_place() -> None:
    readers = {
        name
        for name, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and ast.unparse(node) in ("os.environ", "os.getenv", "os.putenv")
    }
    assert {name for name in readers if room_of(name) != "cli"} <= {"autoseg.support.workspace"}


def test_print_only_where_a_person_reads() -> None:
    printers = {
        name
        for name, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    }
    assert not {name for name in printers if room_of(name) != "cli"}


# What ends or changes the program that called us -> the modules that may: those a command asks to, and worker processes.
OF_THE_PROGRAM = {
    "SystemExit": {"autoseg.training.graceful_shutdown"},
    "sys.exit": set(),
    "os._exit": set(),
    "os.abort": set(),
    "os.chdir": set(),
    "atexit.register": set(),
    "logging.basicConfig": set(),
    "signal.signal": {"autoseg.training.graceful_shutdown", "autoseg.support.parallel"},
    "warnings.filterwarnings": set(),
}


def test_a_library_leaves_the_program_alone() -> None:
    for name, tree in TREES.items():
        if room_of(name) == "cli":
            continue
        for node in ast.walk(tree):
            what = node.func if isinstance(node, ast.Call) else node.exc if isinstance(node, ast.Raise) and node.exc else None
            used = ast.unparse(what) if what is not None else ""
            assert name in OF_THE_PROGRAM.get(used, {name}), f"{name}:{getattr(node, 'lineno', 0)} uses {used}"


def test_no_swallowed_errors_and_no_unsafe_loading() -> None:
    for name, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ExceptHandler):
                assert not (len(node.body) == 1 and isinstance(node.body[0], ast.Pass)), f"{name}:{node.lineno}"
                assert node.type is not None, f"{name}:{node.lineno} catches everything"
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load":
                safe = [k for k in node.keywords if k.arg == "weights_only" and ast.unparse(k.value) == "True"]
                assert safe, f"{name}:{node.lineno} loads without weights_only=True"


def test_settings_of_opencv_and_pillow_belong_to_the_program() -> None:
    """They hold for the whole process, so a library changes none; worker processes, which are ours alone, may."""
    settings = {"setNumThreads", "setLogLevel", "MAX_IMAGE_PIXELS"}
    changers = {
        name
        for name, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and node.attr in settings
    }
    assert changers <= {"autoseg.support.parallel"}


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_files_and_functions_hold_one_idea(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= LONGEST_FILE
    for node in ast.walk(TREES[name_of(path)]):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            # A docstring that explains every parameter does not make a function harder to read.
            length = node.end_lineno - node.lineno - len((ast.get_docstring(node, clean=False) or "").splitlines())
            assert length < LONGEST_FUNCTION, f"{node.name} is {length} long"


def dataclass_decorator(node: ast.ClassDef) -> ast.expr | None:
    names = {"dataclass", "dataclasses.dataclass"}
    return next((one for one in node.decorator_list if ast.unparse(one).partition("(")[0] in names), None)


def is_keyword_only(decorator: ast.expr) -> bool:
    return isinstance(decorator, ast.Call) and any(
        one.arg == "kw_only" and ast.unparse(one.value) == "True" for one in decorator.keywords
    )


def test_dataclasses_of_more_than_four_fields_are_keyword_only() -> None:
    """Nobody can check `ClassScore(3, 1, 2, 0.5, 0.4, ...)` by reading it."""
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
            if isinstance(node, ast.ImportFrom) and node.module and room_of(node.module) in {*RANK, "dataset_conversion"}:
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
def test_help_brings_in_nothing_heavy(module: str) -> None:
    """`--help` must not import torch and the like: what it imports is listed by the interpreter itself."""
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
