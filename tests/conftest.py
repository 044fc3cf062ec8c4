"""Settings every test runs under."""

from __future__ import annotations

import os

# One thread a process, and none that spins while it waits: tests run side by side, and small tensors gain nothing from more.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
