"""An arm that trains nothing: its masks are the references, shifted to the right.

options: shift, in pixels. fail: the error to end with. wait: seconds.
"""

import os
import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.race.side import Phases, finish, start

request = start()
phases = Phases("cpu")
time.sleep(request.options.get("wait", 0))
if Path(request.options.get("fail_if", "/nowhere")).exists():
    sys.exit("no memory left")
for case in request.held_out():
    with Image.open(Path(request.raw) / "labelsTr" / f"{case}.png") as mask:
        moved = np.roll(np.asarray(mask), request.options["shift"], axis=1)
    Image.fromarray(moved).save(Path(request.output) / f"{case}.png")
for phase in ("prepare", "train", "predict"):
    phases.end(phase)
saw = "no choice of the training saw the scored cases"
cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
finish(
    request, phases, model="shift", steps=1, batch=2, input=[8, 8], precision="fp32", saw=saw, versions={}, cores=cores,
    seconds_given=request.seconds,
)  # fmt: skip
