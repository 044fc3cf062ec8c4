"""Ranges of fields, written as their types (`batch_size: Positive`) and checked whenever a file is read (see `serde`)."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Annotated, Any

# Numbers beyond these overflow in numpy and torch: 64-bit integers, float32.
LARGEST_INT = 2**63 - 1
LARGEST_FLOAT = 3.5e38
# Tolerance of floats: rounded sums of probabilities may lie slightly outside 0 and 1.
_ROUNDING = 1e-4
_MAX_NAME_BYTES = 255
# Separators, control characters, the colon after a drive of Windows.
_NOT_IN_NAMES = re.compile(r"[/\\\x00-\x1f\x7f]|(?<=^[A-Za-z]):")


@dataclass(frozen=True)
class Within:
    """A number from `low` to `high`. above: greater than `low`. undefined: not-a-number is allowed, null in the file."""

    low: float
    high: float = math.inf
    above: bool = False
    undefined: bool = False

    def holds(self, value: Any) -> bool:
        """Whether a number is in the range; None is not-a-number."""
        if value is None or value != value:
            return self.undefined
        slack = _ROUNDING if isinstance(value, float) else 0
        low = self.low < value if self.above else self.low - slack <= value
        return bool(low and value <= min(self.high + slack, LARGEST_INT))

    def __str__(self) -> str:
        if math.isinf(self.high):
            if math.isinf(self.low):
                return "a number up to 2^63"
            return f"a number {'above' if self.above else 'from'} {self.low:.10g}"
        low = f"above {self.low:.10g} and up to" if self.above else f"from {self.low:.10g} to"
        return f"a number {low} {self.high:.10g}"


@dataclass(frozen=True)
class IsFileName:
    """Text that can name a file or folder within its own folder (see `is_file_name`)."""

    def holds(self, value: Any) -> bool:
        return is_file_name(value)

    def __str__(self) -> str:
        return "the name of a file, without folders"


@dataclass(frozen=True)
class IsPathBelow:
    """A relative path that does not leave its folder. empty: "" is allowed too."""

    empty: bool = False

    def holds(self, value: Any) -> bool:
        return (self.empty and not value) or is_path_below(value)

    def __str__(self) -> str:
        return "a path within its folder"


Limit = Within | IsFileName | IsPathBelow

Count = Annotated[int, Within(0)]
Positive = Annotated[int, Within(1)]
# Pixels of a side, items of a batch: larger values fit no memory.
Side = Annotated[int, Within(1, 2**20)]
Epochs = Annotated[int, Within(1, 10**7)]
Axis = Annotated[int, Within(0, 1)]
# Values of label maps: masks have up to 16 bits.
LabelNumber = Annotated[int, Within(0, 65535)]
Share = Annotated[float, Within(0, 1)]
Factor = Annotated[float, Within(0, 1, above=True)]
Views = Annotated[int, Within(0, 1000)]
EncoderRate = Annotated[float, Within(0, 1000)]
LearningRate = Annotated[float, Within(0, 1000, above=True)]
NonNegative = Annotated[float, Within(0)]
AboveZero = Annotated[float, Within(0, above=True)]
JpegQuality = Annotated[float, Within(1, 100)]
Range = tuple[NonNegative, NonNegative]
# Results that can be undefined: not-a-number.
Result = Annotated[float, Within(-math.inf, undefined=True)]
ShareResult = Annotated[float, Within(0, 1, undefined=True)]
NonNegativeResult = Annotated[float, Within(0, undefined=True)]
FileName = Annotated[str, IsFileName()]
PathBelow = Annotated[str, IsPathBelow()]
PathBelowOrNone = Annotated[str, IsPathBelow(empty=True)]


def is_file_name(text: str) -> bool:
    """Whether text can name a file or folder within its own folder.

    It holds no separator of any system, no drive and no control character, is not "." or "..", is valid UTF-8, and no longer
    than file systems allow.
    Every name that comes from a file (cases, classes, keys of a plan, members of an archive) passes here before it is used.
    """
    if text in ("", ".", "..") or _NOT_IN_NAMES.search(text):
        return False
    try:
        return len(text.encode()) <= _MAX_NAME_BYTES
    except UnicodeEncodeError:
        return False


def is_path_below(text: str) -> bool:
    """Whether text is a relative path, with '/' or '\\', each part of which is a file name: it cannot leave its folder."""
    return all(is_file_name(part) for part in text.replace("\\", "/").split("/"))


def without_separators(text: str) -> str:
    """The text with '_' for what a file name may not hold, for names that the user cannot change."""
    return _NOT_IN_NAMES.sub("_", text)
