"""The how-to guides: the code that each one shows does what the page says that it prints."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs.walkthrough import DOCS, follow

# Those that show a program, which is a file with a name; own_vmm needs a CPU for its guest.
PAGES = sorted(path for path in (DOCS / "how-to").glob("*.md") if "```python title=" in path.read_text())
PLAIN = [path for path in PAGES if path.stem != "own_vmm"]


@pytest.mark.machine
def test_own_vmm(cpu: str, tmp_path: Path) -> None:
    assert follow(DOCS / "how-to" / "own_vmm.md", tmp_path) == []


@pytest.mark.parametrize("page", PLAIN, ids=lambda page: page.stem)
def test_how_to(page: Path, tmp_path: Path) -> None:
    assert follow(page, tmp_path) == []
