"""Tables of the command line: what they print is text, whatever is in it."""

from __future__ import annotations

import io

import pytest
from rich.table import Table

from shardio.cli.summary import console


@pytest.mark.parametrize("text", ["pip install 'shardio[bench]'", "[red]lamp[/]", ":smile:", "[/]"])
def test_brackets_and_colons_are_shown_as_they_are(text: str) -> None:
    stream = io.StringIO()
    table = Table("device")
    table.add_row(text)

    console(stream).print(text, table)

    assert stream.getvalue().count(text) == 2
