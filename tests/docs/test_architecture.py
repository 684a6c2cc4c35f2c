"""docs/architecture.md has the floors that import-linter checks."""

from __future__ import annotations

import re
import tomllib

from tests.docs.walkthrough import DOCS


def test_every_room_is_in_the_table_of_floors() -> None:
    settings = tomllib.loads((DOCS.parent / "pyproject.toml").read_text())
    layers = settings["tool"]["importlinter"]["contracts"][0]["layers"]
    # In parentheses: what need not be there, and compiled modules.
    rooms = {room for layer in layers for room in re.split(r"\s*:\s*", layer) if not room.startswith("(")}
    table = (DOCS / "architecture.md").read_text().partition("\n## Floors\n")[2].partition("\n## ")[0]

    assert {room for room in rooms if f"`shardio.{room}`" not in table} == set()
