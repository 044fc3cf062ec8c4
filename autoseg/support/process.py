"""Whose process this is."""

from __future__ import annotations

import os
import sys


def is_own() -> bool:
    """Whether this process runs one of autoseg's commands and nothing else, and no other program called it."""
    return os.path.basename(sys.argv[0]).startswith("autoseg_")
