"""Opens checkpoints that hold more than tensors, without running anything that the file names.

Training code saves its arguments, its configuration and NumPy scalars with the weights. PyTorch's safe loading refuses
their classes. They are not needed: here each class that a file names stands for an empty dictionary, through PyTorch's
allow-list. Nothing is imported by a name from the file. A function that the file wants to call is refused, except for the
few below that plain values need; those are not called either.
"""

from __future__ import annotations

import pickletools
import zipfile
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, NoReturn

import torch

from autoseg.support.archives import UnpackingBudget, check_zip


class _Ignored:
    """Stands for a value. It takes any arguments and any state, and keeps nothing."""

    def __init__(self, *_: Any) -> None:
        super().__init__()

    def __setstate__(self, _: Any) -> None:
        return


# Calls by which NumPy's scalars and arrays, paths, dates and containers are stored.
_VALUES = (
    *(f"numpy.{core}.multiarray.{name}" for core in ("core", "_core") for name in ("scalar", "_reconstruct")),
    "numpy._core.numeric._frombuffer", "numpy.dtype", "numpy.ndarray", "argparse.Namespace", "types.SimpleNamespace",
    *(f"pathlib.{name}" for name in ("Path", "PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath")),
    *(f"datetime.{name}" for name in ("date", "datetime", "time", "timedelta", "timezone")),
    "builtins.frozenset", "builtins.range", "builtins.slice",
)  # fmt: skip
# What they make here. The unpickler fills dictionaries and lists itself.
_PLAIN_VALUES: dict[str, Callable[..., Any]] = {
    **dict.fromkeys(_VALUES, _Ignored),
    "collections.defaultdict": lambda *_: OrderedDict(),
    "collections.deque": lambda *_: [],
}
_ZIP = b"PK\x03\x04"
# PyTorch does not compress.
_MAX_RATIO = 2


class _Uncallable(type):
    """Of classes that may be instantiated by the unpickler (`cls.__new__`), and not called as a function."""

    def __call__(cls, *_: Any) -> NoReturn:
        raise UnpicklingError(f"the file calls {cls.__name__}")


def _stand_in(name: str) -> Callable[..., Any]:
    """What a name from the file is replaced by. The unpickler can fill an OrderedDict in every way it knows."""
    return _PLAIN_VALUES.get(name) or _Uncallable(name, (), {"__new__": lambda cls, *_: OrderedDict()})


def load_inert(path: Path) -> Any:
    """The content of a file of torch.save, with an empty dictionary for each object that PyTorch does not know.

    Raises UnpicklingError if the file calls a function.
    """
    allowed: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [_Ignored]
    allowed += [(_stand_in(name), name) for name in sorted(_unknown_names(path))]
    # A stream, because torch.load chooses the format of a path by its suffix.
    with torch.serialization.safe_globals(allowed), path.open("rb") as stream:
        return torch.load(stream, map_location="cpu", weights_only=True)


def _unknown_names(path: Path) -> set[str]:
    """Classes and functions that the file names. The pickle is read, not executed. PyTorch prefers those that it knows."""
    with path.open("rb") as stream:
        if stream.read(len(_ZIP)) == _ZIP:
            _check_archive(path)
            return set(torch.serialization.get_unsafe_globals_in_checkpoint(path))
        stream.seek(0)
        # Before PyTorch 1.6 a file held four pickles: magic number, version, machine, content. Then come the values.
        operations = [operation for _ in range(4) for operation in pickletools.genops(stream)]
    return {_name_today(*str(argument).split(" ", 1)) for code, argument, _ in operations if code.name == "GLOBAL"}


def _check_archive(path: Path) -> None:
    """Raises AutosegError for an archive that unpacks to far more than its size, ValueError for a damaged one."""
    size = path.stat().st_size
    try:
        with zipfile.ZipFile(path) as archive:
            check_zip(archive.infolist(), size, str(path), UnpackingBudget(where=str(path), size=size, ratio=_MAX_RATIO))
    except zipfile.BadZipFile as error:
        raise ValueError(error) from error


def _name_today(module: str, name: str) -> str:
    """Files use Python 2's names of what is built in."""
    module, name = NAME_MAPPING.get((module, name), (IMPORT_MAPPING.get(module, module), name))
    return f"{module}.{name}"
