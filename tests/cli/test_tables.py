from autoseg.cli import entry


def test_tables_in_files_are_plain_text_with_unwrapped_titles(capsys):
    title = "fold 0: held-out cases at their own size [the best of 6 epochs]"
    entry.show_table(title, ("class", "Dice"), [("lesion", "0.176"), ("[red]", "0.5")])
    shown = capsys.readouterr().out
    assert shown.splitlines()[0] == title
    assert "lesion   0.176" in shown and "[red]    0.5" in shown and "\x1b" not in shown
