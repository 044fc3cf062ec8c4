"""Whose process this is."""

from __future__ import annotations

import os
import sys


def is_own() -> bool:
    """Whether this process runs one of autoseg's commands and nothing else, and no other program called it.

    A script of somebody's own is another program, whatever its name begins with.
    """
    name = os.path.basename(sys.argv[0])
    return name.startswith("autoseg_") and not name.endswith(".py")
