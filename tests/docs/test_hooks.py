"""`tools/docs_hooks.py` and `tools/docs_doctests.py`: what fills the pages that are generated."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from shardio import cli
from tests.docs.walkthrough import DOCS, ROOT

pytest.importorskip("mkdocs", reason="the documentation is not built here: make docs")
pytest.importorskip("mkdocstrings", reason="the documentation is not built here: make docs")

SITE = "site_name: a site of one page\ntheme: {name: mkdocs}\nplugins: []\n"


def tool(name: str) -> ModuleType:
    """A module of tools/, which is no package."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "tools" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_command_is_in_the_reference() -> None:
    text = "\n".join(tool("docs_hooks").commands())

    assert [name for name in cli.COMMANDS if f"## `shardio {name}`" not in text] == []


@pytest.mark.parametrize(
    "line", ["| `--expect TEXT` |", "| `CONFIG.toml` |", "| `NAME|PID` |", "### `shardio bench quick`"]
)
def test_arguments_and_commands_below_a_command_are_in_it(line: str) -> None:
    assert line in "\n".join(tool("docs_hooks").commands())


def test_a_structure_is_the_header_s() -> None:
    text = tool("docs_hooks").structure("sio_posted")

    assert text.startswith("```c\nstruct sio_posted {")
    assert text.endswith("uint64_t data;\n};\n```")


def test_a_structure_that_is_not_there_is_refused() -> None:
    from mkdocs.exceptions import PluginError

    with pytest.raises(PluginError, match="no struct sio_nothing"):
        tool("docs_hooks").structure("sio_nothing")


def test_every_structure_of_the_layout_is_on_its_page() -> None:
    hooks = tool("docs_hooks")
    page = SimpleNamespace(file=SimpleNamespace(src_uri="reference/layout.md"))
    markdown = (DOCS / "reference" / "layout.md").read_text()

    shown = hooks.on_page_markdown(markdown, page=page, config=None, files=None)

    assert sorted(re.findall(r"^struct (\w+) \{", shown, re.MULTILINE)) == sorted(hooks.structures())


def test_a_link_to_a_source_leads_to_a_page_of_the_site() -> None:
    hooks = tool("docs_hooks")

    assert hooks._source("reference/layout.md", "../../native/order.h") == Path("native/order.h")
    assert hooks._source("reference/layout.md", "../../native/nothing.h") is None
    assert hooks._source("reference/layout.md", "../explanation/recovery.md") is None


@pytest.mark.parametrize("link", ["nothing.md", "index.md#nothing", "../native/nothing.h"])
def test_a_link_that_leads_nowhere_fails_the_build(link: str, tmp_path: Path) -> None:
    """By the command of `make docs`: with --quiet MkDocs tells no warning, and strict mode counts none."""
    command = re.search(r"\$\(PY\) -m (mkdocs build[^#\n]*)", (ROOT / "Makefile").read_text())
    assert command is not None
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "index.md").write_text(f"# A page\n\n[a link]({link})\n")
    (tmp_path / "mkdocs.yml").write_text(SITE + yaml_of("validation"))

    done = subprocess.run(
        [sys.executable, "-m", *command[1].split()],
        cwd=tmp_path, capture_output=True, text=True, check=False, timeout=50,
    )  # fmt: skip

    assert "Aborted with 1 warnings in strict mode" in done.stdout + done.stderr
    assert done.returncode != 0


def yaml_of(key: str) -> str:
    """The lines of a key of mkdocs.yml."""
    found = re.search(rf"^{key}:\n(?: .*\n)*", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE)
    assert found is not None
    return found[0]


def test_a_doctest_is_fenced() -> None:
    doctests = tool("docs_doctests")
    docstring = "Adds.\n\n>>> add(1, 2)\n3\n\nAnd more.\n"

    fenced = doctests.DOCTEST.sub(doctests.fenced, docstring)

    assert fenced == "Adds.\n\n\n```pycon\n>>> add(1, 2)\n3\n```\n\nAnd more.\n"


@pytest.mark.parametrize("page", sorted(DOCS.rglob("*.md")), ids=lambda page: page.stem)
def test_no_diagram_has_a_semicolon(page: Path) -> None:
    """Mermaid ends a statement at one, wherever it is, and shows an error in place of the diagram."""
    diagrams = re.findall(r"```mermaid\n(.*?)```", page.read_text(), re.DOTALL)

    assert [diagram for diagram in diagrams if ";" in diagram] == []
