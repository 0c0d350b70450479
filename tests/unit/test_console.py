"""What the commands show: nothing that somebody else wrote moves the cursor, sets a title or fills a clipboard."""

import pytest
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from pipeline.cli import console

WRITTEN = "a\x1b[2Jb\x1b]52;c;eA==\x07c\x9b2Jd\x7fe\x00f\n\tg"


def test_what_others_have_written_does_nothing_to_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    table, tree = Table("x"), Tree(WRITTEN)
    table.add_row(Text(WRITTEN))
    tree.add(Text(WRITTEN))
    for shown in (WRITTEN, Text(WRITTEN), table, tree):
        console.out.print(shown)
    console.listing(("one", "two", "three"), [(WRITTEN, Text(WRITTEN), WRITTEN)])
    console.fields({"response": WRITTEN, "status": WRITTEN})
    console.complain(WRITTEN, WRITTEN)
    said = "".join(capsys.readouterr())
    assert said.count("a[2Jb]52;c;eA==c2Jdef") >= 11
    assert not [character for character in said if character != "\n" and not character.isprintable()]


def test_colours_are_shown_all_the_same(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console.out, "_force_terminal", True)
    monkeypatch.setattr(console.out, "_color_system", 1)
    monkeypatch.setattr(console.out, "no_color", False)
    console.out.print(console.state("failed"), "[bold]x[/]")
    assert capsys.readouterr().out == "\x1b[31mfailed\x1b[0m \x1b[1mx\x1b[0m\n"


def test_an_empty_listing_says_so_beside_what_programs_read(capsys: pytest.CaptureFixture[str]) -> None:
    console.listing(("run", "status"), [])
    said = capsys.readouterr()
    assert (said.out.split(), said.err) == (["run", "status"], "none\n")
