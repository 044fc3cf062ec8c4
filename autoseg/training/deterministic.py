"""Training that repeats to the last bit on a GPU (--deterministic).

Without it PyTorch may add up gradients in any order there (atomic additions), so that two equal runs differ by rounding and
drift apart. On a CPU runs repeat anyway.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from autoseg.support.errors import AutosegError
from autoseg.support.workspace import temporary_variable

_WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"
# Without one of these values cuBLAS may add up products of matrices in another order.
_WORKSPACES = (":4096:8", ":16:8")
_NO_DETERMINISTIC_FORM = re.compile(r"(\S+) does not have a deterministic implementation")


@contextmanager
def deterministic_algorithms(enabled: bool = True) -> Iterator[None]:
    """PyTorch computes everything in here with algorithms that repeat; afterwards all settings are as before.

    enabled: False changes nothing. Raises AutosegError that names the operation if one has no such algorithm: a run that
    claims to repeat and does not would be worse than none.
    """
    if not enabled:
        yield
        return
    modes = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    benchmark = torch.backends.cudnn.benchmark
    with temporary_variable(_WORKSPACE, _WORKSPACES[0]) as workspace:
        if workspace not in _WORKSPACES:
            raise AutosegError(
                f"{_WORKSPACE} is {workspace!r}: with it products of matrices do not repeat, as --deterministic asks for",
                f"unset it, or set it to {' or '.join(_WORKSPACES)}",
            )
        try:
            torch.use_deterministic_algorithms(True)
            torch.backends.cudnn.benchmark = False
            yield
        except RuntimeError as error:
            operation = _NO_DETERMINISTIC_FORM.search(str(error))
            if operation is None:
                raise
            raise AutosegError(
                f"{operation[1]} has no deterministic form in PyTorch {torch.__version__}, and --deterministic allows no other",
                "train this model without --deterministic, or on a CPU; documentation/training.md lists the models",
            ) from error
        finally:
            torch.use_deterministic_algorithms(modes[0], warn_only=modes[1])
            torch.backends.cudnn.benchmark = benchmark
