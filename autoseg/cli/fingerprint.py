"""autoseg_fingerprint: what can be measured of a dataset, as tables."""

from __future__ import annotations

from collections.abc import Sequence

from autoseg.cli import entry


@entry.command
def main(arguments: Sequence[str] | None = None) -> int:
    parser = entry.parser("autoseg_fingerprint", "Measure a dataset (or read what was measured) and print it as tables.")
    entry.add_dataset(parser)
    options = parser.parse_args(arguments)
    from autoseg import api
    from autoseg.fingerprint import table

    entry.configure_glibc_malloc(arguments)
    found = api.fingerprint(options.dataset, root=options.root, processes=entry.is_own_process(arguments))
    entry.show_table(found.dataset, ("", ""), table.overview(found))
    for heading, *rows in (table.channels(found), table.classes(found)):
        entry.show_table("", heading, rows)
    entry.show_table("worth a look", ("", "", "cases"), table.findings(found))
    return 0
