"""autoseg_fingerprint: measures a dataset and prints tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from autoseg.cli import _tables, entry

if TYPE_CHECKING:
    from autoseg.schema.fingerprint import Fingerprint


@entry.command
def main(arguments: Sequence[str] | None = None) -> int:
    parser = entry.parser("autoseg_fingerprint", "Measure a dataset, or read fingerprint.json, and print tables.")
    entry.add_dataset(parser)
    options = parser.parse_args(arguments)
    from autoseg import api

    entry.configure_glibc_malloc(arguments)
    own = entry.is_own_process(arguments)
    with entry.unsaved(api.fingerprint, options.dataset, root=options.root, processes=own) as measured:
        _show(measured)
    return 0


def _show(measured: Fingerprint) -> None:
    from autoseg.fingerprint import table

    _tables.show_table(measured.dataset, ("", ""), table.overview(measured))
    for heading, *rows in (table.channels(measured), table.classes(measured)):
        _tables.show_table("", heading, rows)
    advice = table.metrics(measured)
    if advice:
        _tables.show_table("metrics to read", ("class", "metrics", "because"), advice)
    findings = table.findings(measured)
    if findings:
        _tables.show_table("to check", ("", "", "cases"), findings)
    else:
        print("to check: nothing")
