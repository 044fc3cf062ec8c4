"""autoseg_weights: which published weights there are, and getting them into the weights folder."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from autoseg.cli import _tables, entry
from autoseg.support.errors import AutosegError, SeveralProblems

if TYPE_CHECKING:
    from autoseg.api.weights import WeightsCheck, WeightsDownload, WeightsInfo

_EXAMPLES = """examples:
  autoseg_weights list segformer
  autoseg_weights fetch segformer hiformer:S
  autoseg_weights fetch --plan Polyp
  autoseg_weights export kit.zip
  autoseg_weights add kit.zip
  autoseg_weights verify"""


@entry.resumable("the same command goes on where the download stopped")
def main(arguments: Sequence[str] | None = None) -> int:
    parser = entry.parser(
        "autoseg_weights", "Published weights that networks start from. Only fetch opens a connection.", _EXAMPLES
    )
    kinds = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    for add in (_add_list, _add_fetch, _add_add, _add_verify, _add_export):
        command = add(kinds)
        command.add_argument("--root", metavar="DIR", default=argparse.SUPPRESS, help="see autoseg_weights --help")
    options = parser.parse_args(arguments)
    return int(options.run(options))


def _add_list(kinds: Any) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = kinds.add_parser("list", help="every model's files: licence, source, present or not")
    parser.add_argument("models", nargs="*", metavar="MODEL", help="only these models (default: all)")
    parser.add_argument("--present", action="store_true", help="only what is present")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=_list)
    return parser


def _list(options: argparse.Namespace) -> int:
    from autoseg import api

    rows = [row for row in api.weights_table(options.models or None, options.root) if row.present or not options.present]
    if options.json:
        print(json.dumps([asdict(row) for row in rows], indent=1, ensure_ascii=False))
        return 0
    groups: dict[str, list[str]] = {}
    for row in rows:
        part = f", {row.part}" if row.part else ""
        groups.setdefault(f"{row.model} {', '.join(row.variants)}{part}", []).append(_describe(row, bool(options.models)))
    _tables.show_entries("Published weights (* gets fetched if nothing else is named)", groups.items())
    if not options.models:
        models = [model for model in api.model_table(options.root) if model.weights]
        ready = [model.name for model in models if model.weights_present]
        _tables.show_text(
            f"{len(ready)} of {len(models)} networks start from published weights in their default variant: "
            f"{', '.join(ready) or 'none'}. What is missing: autoseg_weights fetch MODEL, or --all"
        )
    return 0


def _describe(row: WeightsInfo, with_address: bool) -> str:
    commercial = {True: "", False: ", no commercial use", None: ", commercial use not known"}[row.commercial]
    where = row.source if with_address or row.source.startswith("pip") else urlsplit(row.source).hostname
    state = row.present if row.present.startswith("package") else "present" if row.present else "not present"
    facts = [
        f"{'* ' if row.preferred else ''}{row.file} ({state})",
        row.trained_on,
        f"{row.megabytes} MB" if row.megabytes else "size not known",
        f"{row.licence or 'licence not known'}{commercial}",
        where or "from its authors, by hand",
        *(["only for --pretrained study"] if row.study else []),
        *(["access on request"] if row.gated else []),
    ]
    return "; ".join(facts)


def _add_fetch(kinds: Any) -> argparse.ArgumentParser:
    about = "download what is missing, after showing from where, and asking"
    parser: argparse.ArgumentParser = kinds.add_parser("fetch", help=about)
    parser.add_argument("models", nargs="*", metavar="MODEL[:VARIANT]", help="models (default variant, if none is named)")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--plan", metavar="DATASET", help="the models and variants of a dataset's plan")
    what.add_argument("--all", action="store_true", help="the default variant of every model")
    parser.add_argument("--study", action="store_true", help="with --all: also what only the first study used")
    parser.add_argument("--file", metavar="FILE", help="this of the model's files, by its name in the list")
    parser.add_argument("--licence", choices=("any", "commercial"), default="any", help="commercial: only what allows it")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--mirror", metavar="URL", help="a web server with the layout of the weights folder")
    where.add_argument("--from", dest="source", metavar="DIR", help="a folder of weights files; opens no connection")
    parser.add_argument("--token", action="store_true", help="send your token of the Hugging Face hub (else none is sent)")
    parser.add_argument("--yes", action="store_true", help="do not ask")
    parser.set_defaults(run=_fetch)
    return parser


def _fetch(options: argparse.Namespace) -> int:
    from autoseg import api

    if not options.models and not options.plan and not options.all:
        raise AutosegError("nothing to fetch was named", "give MODEL[:VARIANT], --plan DATASET or --all")
    if options.models and (options.plan or options.all):
        raise AutosegError("models were named, and --plan or --all too", "give one of them")
    records = api.fetch_weights(
        options.models or None,
        dataset=options.plan,
        file=options.file,
        study=options.study,
        commercial=options.licence == "commercial",
        mirror=options.mirror,
        source=options.source,
        with_token=options.token,
        confirm=partial(_confirm, asks=not options.yes),
        root=options.root,
    )
    for record in records:
        print(f"in weights/{record.path}: {record.size:,} bytes, SHA-256 {record.sha256[:16]}...")
    if not records:
        print("nothing was fetched: what was asked for is present, or the answer was no")
    return 0


def _confirm(downloads: Sequence[WeightsDownload], asks: bool) -> bool:
    """Show what would be fetched, from where; whether the user agrees."""
    total = sum(one.megabytes for one in downloads)
    _tables.show_entries(
        f"{len(downloads)} file{'s' if len(downloads) > 1 else ''}, about {total} MB",
        ((f"{one.file} for {', '.join(one.models)}", [one.address, _facts(one)]) for one in downloads),
    )
    hosts = dict.fromkeys(host for one in downloads for host in one.hosts)
    _tables.show_text(f"hosts: {', '.join(hosts)}" if hosts else "no connection is opened")
    if not asks:
        return True
    if not sys.stdin.isatty():
        raise AutosegError("there is no terminal to ask whether to fetch", "add --yes if you agree")
    return input("fetch? [y/N] ").strip().lower() in ("y", "yes")


def _facts(one: WeightsDownload) -> str:
    commercial = {True: "commercial use allowed", False: "no commercial use", None: "commercial use not known"}
    size = f"{one.size:,} bytes" if one.size else f"about {one.megabytes} MB" if one.megabytes else "size not known"
    facts = [size, one.trained_on, f"licence: {one.licence or 'not known'} ({commercial[one.commercial]})"]
    facts.append("access on request: needs --token" if one.gated else "no login")
    facts.append(f"SHA-256 {one.sha256[:16]}{'...' if len(one.sha256) > 16 else ''}" if one.sha256 else "its hash is recorded")
    facts += ["used with --pretrained study only"] if one.study else []
    return "; ".join(facts)


def _add_add(kinds: Any) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = kinds.add_parser("add", help="put files that are on this machine into the weights folder")
    parser.add_argument("sources", nargs="+", metavar="KIT|FILE|DIR", help="kits, weights files, folders of them")
    parser.add_argument("--for", dest="model", metavar="MODEL[:VARIANT]", help="the model, if the file's name does not say so")
    parser.set_defaults(run=_add)
    return parser


def _add(options: argparse.Namespace) -> int:
    from autoseg import api

    for source in options.sources:
        for record in api.add_weights(source, options.model, options.root):
            licence = f"licence: {record.licence or 'not known'}"
            print(f"added {record.path} ({record.size / 1e6:.1f} MB, {record.trained_on}, {licence})")
    return 0


def _add_verify(kinds: Any) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = kinds.add_parser("verify", help="check hashes, and that each file fits its networks")
    parser.set_defaults(run=_verify)
    return parser


def _verify(options: argparse.Namespace) -> int:
    from autoseg import api

    checks = api.verify_weights(options.root)
    if not checks:
        print("the weights folder is empty")
        return 0
    _tables.show_table("Weights folder", ("file", "MB", "SHA-256", "result"), [_result(check) for check in checks])
    faults = [f"{check.file}: {fault}" for check in checks for fault in check.faults]
    if faults:
        raise SeveralProblems("weights that cannot be used:", faults, "fetch or add them again, or delete them")
    return 0


def _result(check: WeightsCheck) -> list[str]:
    fits = ", ".join(f"{model} ({count} tensors)" for model, count in check.fits.items())
    text = "see below" if check.faults else f"fits {fits}" if fits else "of no model that is known here"
    return [check.file, f"{check.size / 1e6:.1f}", check.sha256[:16], text]


def _add_export(kinds: Any) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = kinds.add_parser("export", help="write a kit for a machine without a network")
    parser.add_argument("kit", metavar="KIT", help="the archive to write, such as kit.zip")
    parser.add_argument("models", nargs="*", metavar="MODEL[:VARIANT]", help="only their files (default: all that are present)")
    parser.set_defaults(run=_export)
    return parser


def _export(options: argparse.Namespace) -> int:
    from autoseg import api

    records = api.export_weights(options.kit, options.models or None, options.root)
    for record in records:
        print(f"{record.path}: {record.size / 1e6:.1f} MB, licence: {record.licence or 'not known'}")
    print(f"in {options.kit}. On the other machine: autoseg_weights add {options.kit}")
    return 0
