"""autoseg_fingerprint: measures a dataset and prints tables."""

from __future__ import annotations

from collections.abc import Sequence

from autoseg.cli import _tables, entry


@entry.command
def main(arguments: Sequence[str] | None = None) -> int:
    parser = entry.parser("autoseg_fingerprint", "Measure a dataset, or read fingerprint.json, and print tables.")
    entry.add_dataset(parser)
    options = parser.parse_args(arguments)
    from autoseg import api
    from autoseg.fingerprint import table

    entry.configure_glibc_malloc(arguments)
    measured = api.fingerprint(options.dataset, root=options.root, processes=entry.is_own_process(arguments))
    _tables.show_table(measured.dataset, ("", ""), table.overview(measured))
    for heading, *rows in (table.channels(measured), table.classes(measured)):
        _tables.show_table("", heading, rows)
    findings = table.findings(measured)
    if findings:
        _tables.show_table("to check", ("", "", "cases"), findings)
    else:
        print("to check: nothing")
    return 0
