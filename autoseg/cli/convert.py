"""autoseg_convert: a published dataset, or somebody's images and masks, into a raw dataset."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from autoseg.cli import entry
from dataset_conversion.registry import CONVERTERS, LAYOUTS, PUBLISHED, REGISTRY, Converter, Option, converter

_EXAMPLES = """examples:
  autoseg_convert --list
  autoseg_convert folders --images photos --masks masks --name Polyp --labels background,polyp
  autoseg_convert busi Dataset_BUSI.zip --dry-run
  autoseg_convert coco export.zip --name Cells"""


@entry.command
def main(arguments: Sequence[str] | None = None) -> int:
    parser = entry.parser(
        "autoseg_convert", "Bring a dataset in: write it in nnU-Net v2's raw layout, after checking every file.", _EXAMPLES
    )
    parser.add_argument("--list", action="store_true", help="the published datasets and layouts that are known, as a table")
    kinds = parser.add_subparsers(dest="kind", metavar="NAME", parser_class=_Described)
    _add_folders(kinds)
    _add_corrections(kinds)
    for known in CONVERTERS.values():
        _add(kinds, known)
    words = sys.argv[1:] if arguments is None else arguments
    for name in REGISTRY.added():
        # Its options are known once it is imported, which only the one that is asked for is.
        if name in words:
            _add(kinds, converter(name))
        elif name not in CONVERTERS:
            kinds.add_parser(name, help=f"of {REGISTRY.source(name)}")
    options = parser.parse_args(arguments)
    if options.list:
        return _list()
    if options.kind is None:
        parser.error("which dataset or layout? autoseg_convert --list shows them")
    from autoseg import api

    general = {key: getattr(options, key) for key in ("name", "number", "overwrite", "dry_run", "root")}
    if options.kind == "folders":
        given = {key: getattr(options, key) for key in ("images", "masks", "labels", "groups", "channels", "modality")}
        print(api.convert_folders(**given, **general))
        return 0
    if options.kind == "corrections":
        print(api.correct(options.decisions, audit=options.audit, **general))
        return 0
    own = {option.name: _value(option, getattr(options, option.name)) for option in converter(options.kind).options}
    print(api.convert(options.kind, options.source, options=own, merge_test=options.merge_test, **general))
    return 0


class _Described(argparse.ArgumentParser):
    """A parser whose help begins with a text that is fetched only when somebody asks for help."""

    about: Callable[[], str] | None = None

    def format_help(self) -> str:
        if self.about is not None:
            self.description = self.about()
        return super().format_help()


def _add_folders(kinds: Any) -> None:
    made = kinds.add_parser("folders", help="a folder of images and a folder of masks with the same names")
    made.add_argument("--images", required=True, type=Path, metavar="DIR", help="the images")
    made.add_argument("--masks", required=True, type=Path, metavar="DIR", help="the masks: same names, pixels are class ids")
    made.add_argument("--labels", type=entry.names, metavar="A,B,...", help="class names by value, background first")
    made.add_argument("--groups", metavar="REGEX", help=r"finds the patient in a file's name, e.g. '(patient\d+)'")
    made.add_argument("--channels", type=entry.names, metavar="A,B,...", help="names of the channels")
    made.add_argument("--modality", default="", help="such as ultrasound, where the images do not tell")
    _add_general(made, title="")


def _add_corrections(kinds: Any) -> None:
    made = kinds.add_parser("corrections", help="what was accepted in the gallery of autoseg_audit, as a corrected dataset")
    made.add_argument("decisions", type=Path, metavar="DECISIONS", help="the file the gallery saved")
    made.add_argument("--audit", type=Path, metavar="DIR", help="the audit's folder (default: results/DATASET/audit)")
    _add_general(made, title="")


def _add(kinds: Any, known: Converter) -> None:
    what = known.paper if known.general else f"{known.modality}: {known.classes}"
    made = kinds.add_parser(known.name, help=what, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.about = known.about
    made.add_argument("source", type=Path, metavar="SOURCE", help="the folder or archive (ZIP, TAR) as it is published")
    for option in known.options:
        if option.kind == "flag":
            made.add_argument(option.flag, action="store_true", help=option.help, dest=option.name)
        else:
            kind = int if option.kind == "int" else str
            made.add_argument(option.flag, type=kind, help=option.help, dest=option.name, metavar=_metavar(option))
    made.add_argument("--merge-test", action="store_true", help="make training cases of test cases that have masks")
    _add_general(made, known.title)


def _add_general(made: argparse.ArgumentParser, title: str) -> None:
    named = f"what to call the dataset (default: {title})" if title else "what to call the dataset"
    made.add_argument("--name", required=not title, default=title, help=named)
    made.add_argument("--id", type=int, metavar="N", dest="number", help="its number (default: the next free from 501)")
    made.add_argument("--dry-run", action="store_true", help="read and check everything, write nothing")
    made.add_argument("--overwrite", action="store_true", help="replace a dataset of that id and name")
    made.add_argument("--root", metavar="DIR", default=argparse.SUPPRESS, help="as above")


def _metavar(option: Option) -> str:
    return "|".join(option.choices) or {"int": "N"}.get(option.kind, "TEXT")


def _value(option: Option, given: Any) -> Any:
    return entry.names(given) if option.name == "labels" and given else given


def _list() -> int:
    added = [module.CONVERTER for _, module in REGISTRY.usable(REGISTRY.added())]
    entry.show_table(
        "published datasets: autoseg_convert NAME SOURCE",
        ("name", "modality", "classes", "images", "licence", "paper"),
        [
            (row.name, row.modality, row.classes, row.size, row.licence, row.paper)
            for row in (*PUBLISHED, *(row for row in added if not row.general))
        ],
    )
    entry.show_table(
        "layouts: autoseg_convert NAME SOURCE --name NAME",
        ("name", "what", "classes from"),
        [
            ("folders", "a folder of images and a folder of masks: --images DIR --masks DIR", "values, names, --labels"),
            *((row.name, row.paper, row.classes) for row in (*LAYOUTS, *(row for row in added if row.general))),
        ],
    )
    return 0
