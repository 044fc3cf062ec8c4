"""autoseg_fingerprint: measures a dataset and prints tables."""

from __future__ import annotations

from collections.abc import Sequence

from autoseg.cli import entry


@entry.command
def main(arguments: Sequence[str] | None = None) -> int:
    parser = entry.parser("autoseg_fingerprint", "Measure a dataset, or read fingerprint.json, and print tables.")
    entry.add_dataset(parser)
    options = parser.parse_args(arguments)
    from autoseg import api
    from autoseg.fingerprint import table

    entry.configure_glibc_malloc(arguments)
    measured = api.fingerprint(options.dataset, root=options.root, processes=entry.is_own_process(arguments))
    entry.show_table(measured.dataset, ("", ""), table.overview(measured))
    for heading, *rows in (table.channels(measured), table.classes(measured)):
        entry.show_table("", heading, rows)
    entry.show_table("to check", ("", "", "cases"), table.findings(measured))
    return 0
