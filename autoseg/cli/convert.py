"""autoseg_convert: converts a published dataset, or images and masks, to a raw dataset."""

from __future__ import annotations

import argparse
import csv
import io
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autoseg.cli import _tables, entry
from autoseg.support.errors import AutosegError
from dataset_conversion.registry import CONVERTERS, LAYOUTS, PUBLISHED, REGISTRY, Converter, Option, converter

if TYPE_CHECKING:
    from autoseg.io.deidentify import Names
    from dataset_conversion.report import ConversionReport

_EXAMPLES = """examples:
  autoseg_convert --list
  autoseg_convert folders --images photos --masks masks --name Polyp --labels background,polyp
  autoseg_convert busi Dataset_BUSI.zip --dry-run
  autoseg_convert coco export.zip --name Cells"""


@entry.command
def main(arguments: Sequence[str] | None = None) -> int:
    parser = entry.parser(
        "autoseg_convert", "Convert a dataset to nnU-Net v2's raw layout, after checks of every file.", _EXAMPLES
    )
    parser.add_argument("--list", action="store_true", help="list the supported datasets and layouts")
    kinds = parser.add_subparsers(dest="kind", metavar="NAME", parser_class=_LazyDescriptionParser)
    _add_folders(kinds)
    _add_corrections(kinds)
    for item in CONVERTERS.values():
        _add_converter(kinds, item)
    arguments_given = sys.argv[1:] if arguments is None else arguments
    for name in REGISTRY.added():
        # Import only the converter that is used; its options are unknown before.
        if name in arguments_given:
            _add_converter(kinds, converter(name))
        elif name not in CONVERTERS:
            kinds.add_parser(name, help=f"of {REGISTRY.source(name)}")
    options = parser.parse_args(arguments)
    if options.list:
        return _list()
    if options.kind is None:
        parser.error("no dataset or layout given; autoseg_convert --list shows them")
    from autoseg import api

    general = {key: getattr(options, key) for key in ("name", "number", "overwrite", "dry_run", "root")}
    if options.kind == "folders":
        keys = ("images", "masks", "labels", "groups", "channels", "modality", "colour")
        folder_options = {key: getattr(options, key) for key in keys}
        _check_names_table(options)
        report = api.convert_folders(**folder_options, **general, names=_names(options))
        _write_names_table(report, options)
        _show(report, options.root)
        return 0
    if options.kind == "corrections":
        _show(api.correct(options.decisions, audit=options.audit, **general), options.root)
        return 0
    converter_options = {
        option.name: _parse_value(option, getattr(options, option.name)) for option in converter(options.kind).options
    }
    _check_names_table(options)
    report = api.convert(
        options.kind, options.source, options=converter_options, merge_test=options.merge_test, **general, names=_names(options)
    )
    _write_names_table(report, options)
    _show(report, options.root)
    return 0


def _names(options: argparse.Namespace) -> Names:
    return "keep" if options.keep_names else "hide" if options.hide_names else "auto"


def _check_names_table(options: argparse.Namespace) -> None:
    """The table identifies patients, so it must not lie among files that are shared."""
    from autoseg.support.workspace import Workspace

    table: Path | None = options.names_table
    if table is not None and Workspace.at(options.root).root.resolve() in table.resolve().parents:
        raise AutosegError(f"{table} lies within the folder of datasets and results", "give a place that you do not share")


def _write_names_table(report: ConversionReport, options: argparse.Namespace) -> None:
    """Write which file became which case; only the user may read it."""
    from autoseg.support.files import ESCAPE, atomic_write

    table: Path | None = options.names_table
    if table is None or report.dry_run:
        return
    if report.unchanged:
        raise AutosegError(f"{report.dataset.name} exists already, so {table} was not written", "add --overwrite")
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerows([("case", "file"), *((case, name) for name, case in report.renamed.items())])
    with atomic_write(table) as temporary:
        # Before anything is in it.
        temporary.chmod(0o600)
        temporary.write_text(text.getvalue(), encoding="utf-8", errors=ESCAPE)


def _show(report: ConversionReport, root: str | None) -> None:
    print(report)
    if not report.dry_run:
        entry.show_next(f"autoseg_plan_and_preprocess {report.dataset.short_name} --explain", root)


class _LazyDescriptionParser(argparse.ArgumentParser):
    """A parser that builds its description only for --help."""

    about: Callable[[], str] | None = None

    def format_help(self) -> str:
        if self.about is not None:
            self.description = self.about()
        return super().format_help()


def _add_folders(kinds: Any) -> None:
    parser = kinds.add_parser("folders", help="a folder of images and a folder of masks with the same names")
    parser.add_argument("--images", required=True, type=Path, metavar="DIR", help="the images")
    parser.add_argument("--masks", required=True, type=Path, metavar="DIR", help="the masks: same names, pixels are class ids")
    parser.add_argument("--labels", type=entry.names, metavar="A,B,...", help="class names by value, background first")
    parser.add_argument("--groups", metavar="REGEX", help=r"finds the patient in a file's name, e.g. '(patient\d+)'")
    parser.add_argument("--channels", type=entry.names, metavar="A,B,...", help="names of the channels")
    parser.add_argument("--colour", choices=("gray", "rgb"), help="store all images like that, if the folder holds both")
    parser.add_argument("--modality", default="", help="such as ultrasound, if the images do not show it")
    _add_names(parser)
    _add_general(parser, title="")


def _add_corrections(kinds: Any) -> None:
    parser = kinds.add_parser("corrections", help="write a corrected dataset from decisions in the gallery of autoseg_audit")
    parser.add_argument("decisions", type=Path, metavar="DECISIONS", help="the file the gallery saved")
    parser.add_argument("--audit", type=Path, metavar="DIR", help="the audit's folder (default: results/DATASET/audit)")
    _add_general(parser, title="")


def _add_converter(kinds: Any, item: Converter) -> None:
    what = item.paper if item.general else f"{item.modality}: {item.classes}"
    parser = kinds.add_parser(item.name, help=what, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.about = item.about
    parser.add_argument("source", type=Path, metavar="SOURCE", help="the folder or archive (ZIP, TAR) as it is published")
    for option in item.options:
        if option.kind == "flag":
            parser.add_argument(option.flag, action="store_true", help=option.help, dest=option.name)
        else:
            kind = int if option.kind == "int" else str
            parser.add_argument(option.flag, type=kind, help=option.help, dest=option.name, metavar=_metavar(option))
    parser.add_argument("--merge-test", action="store_true", help="use test cases with masks as training cases")
    _add_names(parser) if item.general else parser.set_defaults(keep_names=True, hide_names=False, names_table=None)
    _add_general(parser, item.title)


def _add_names(parser: argparse.ArgumentParser) -> None:
    names = parser.add_mutually_exclusive_group()
    names.add_argument("--keep-names", action="store_true", help="keep names of files, also those that identify patients")
    names.add_argument("--hide-names", action="store_true", help="neutral names for all cases, not only identifying ones")
    parser.add_argument("--names-table", type=Path, metavar="FILE", help="write which file became which case; keep it apart")


def _add_general(parser: argparse.ArgumentParser, title: str) -> None:
    name_help = f"name of the dataset (default: {title})" if title else "name of the dataset"
    parser.add_argument("--name", required=not title, default=title, help=name_help)
    parser.add_argument("--id", type=int, metavar="N", dest="number", help="its number (default: the next free from 501)")
    parser.add_argument("--dry-run", action="store_true", help="read and check everything, write nothing")
    parser.add_argument("--overwrite", action="store_true", help="replace a dataset of that id and name")
    parser.add_argument("--root", metavar="DIR", default=argparse.SUPPRESS, help="see autoseg_convert --help")
    entry.add_max_pixels(parser, default=argparse.SUPPRESS)


def _metavar(option: Option) -> str:
    return "|".join(option.choices) or {"int": "N"}.get(option.kind, "TEXT")


def _parse_value(option: Option, value: Any) -> Any:
    return entry.names(value) if option.name == "labels" and value else value


def _list() -> int:
    added = [module.CONVERTER for _, module in REGISTRY.usable(REGISTRY.added())]
    _tables.show_table(
        "published datasets: autoseg_convert NAME SOURCE",
        ("name", "modality", "classes", "images", "licence", "paper"),
        [
            (row.name, row.modality, row.classes, row.size, row.licence, row.paper)
            for row in (*PUBLISHED, *(row for row in added if not row.general))
        ],
    )
    _tables.show_table(
        "layouts: autoseg_convert NAME SOURCE --name NAME",
        ("name", "content", "classes from"),
        [
            ("folders", "a folder of images and a folder of masks: --images DIR --masks DIR", "values, names, --labels"),
            *((row.name, row.paper, row.classes) for row in (*LAYOUTS, *(row for row in added if row.general))),
        ],
    )
    return 0
