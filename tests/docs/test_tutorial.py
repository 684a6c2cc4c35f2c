"""The tutorial, followed word by word in an empty folder on each kind of CPU. Such a test can fail, too."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs.walkthrough import DOCS, follow

SMALL = """
```python title="hello.py"
print("hello", 41)
```

```console
$ python hello.py
{shown}
```
"""


@pytest.mark.timeout(180)  # eight programs, one after the other
@pytest.mark.machine
def test_tutorial(cpu: str, tmp_path: Path) -> None:
    assert follow(DOCS / "tutorial.md", tmp_path) == []


@pytest.mark.parametrize("shown", ["hello 42", "", "hello 41\nand more"])
def test_an_output_that_differs_is_found(shown: str, tmp_path: Path) -> None:
    (tmp_path / "page.md").write_text(SMALL.format(shown=shown))

    assert follow(tmp_path / "page.md", tmp_path) != []


def test_an_output_that_agrees(tmp_path: Path) -> None:
    (tmp_path / "page.md").write_text(SMALL.format(shown="hello 41"))

    assert follow(tmp_path / "page.md", tmp_path) == []
