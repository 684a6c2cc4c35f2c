"""What MkDocs cannot do by itself for docs/: a hook of mkdocs.yml.

A link to a file of the repository outside docs/ leads to a page of the site that shows this file; one that is
broken stays as it is, and the strict build fails for it. `<!-- commands -->` in a page becomes the reference
of the command line, from the parsers themselves, `<!-- struct NAME -->` a structure of native/layout.h, and
`<!-- other structs -->` those that the page has not named, so that none can go stale. A public name of
`shardio` that is on no page fails the build.
"""

from __future__ import annotations

import argparse
import posixpath
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page
from mkdocstrings import Inventory

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
LINK = re.compile(r"(\]\()(\.\.?/[^)#\s]+)((?:#[^)\s]*)?\))")
STRUCT = re.compile(r"<!-- struct (\w+) -->")
# A line of a table that argparse shows as it is: a word, and blanks before the next.
TABLE = re.compile(r"^\w+ {2,}")
OTHER_STRUCTS = "<!-- other structs -->"
COMMANDS = "<!-- commands -->"
LANGUAGES = {".c": "c", ".h": "c", ".py": "python", ".S": "gas", ".toml": "toml", ".md": "markdown"}


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Adds a page for each file of the repository that a page links to."""
    wanted = set()
    for page in files.documentation_pages():
        text = Path(page.abs_src_path or "").read_text()
        wanted |= {path for _, target, _ in LINK.findall(text) if (path := _source(page.src_uri, target))}
    for path in sorted(wanted):
        language, text = LANGUAGES.get(path.suffix, "text"), (ROOT / path).read_text()
        content = f"# {path}\n\n`````{language}\n{text}\n`````\n"
        page = File.generated(config, _page_of(path), content=content)
        page.inclusion = InclusionLevel.NOT_IN_NAV
        files.append(page)
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Fills the markers of a page, and turns its links to files of the repository."""
    here = page.file.src_uri
    if here.startswith("source/"):
        return markdown

    def turned(link: re.Match[str]) -> str:
        path = _source(here, link[2])
        target = posixpath.relpath(_page_of(path), posixpath.dirname(here)) if path else link[2]
        return f"{link[1]}{target}{link[3]}"

    markdown = LINK.sub(turned, markdown)
    named = set(STRUCT.findall(markdown))
    others = (structure(name) for name in structures() if name not in named)
    markdown = STRUCT.sub(lambda marker: structure(marker[1]), markdown)
    markdown = markdown.replace(OTHER_STRUCTS, "\n\n".join(others))
    return markdown.replace(COMMANDS, "\n".join(commands())) if COMMANDS in markdown else markdown


def on_post_build(*, config: MkDocsConfig) -> None:
    """Fails for a public name that no page tells of."""
    with open(Path(config.site_dir) / "objects.inv", "rb") as inventory:
        told = {name.rpartition(".")[2] for name in Inventory.parse_sphinx(inventory)}
    if missing := public_names() - told:
        raise PluginError(f"no page of the API has {', '.join(sorted(missing))}: add it there")


def public_names() -> set[str]:
    """What can be imported from `shardio` itself."""
    return {*import_module("shardio").__all__, *import_module("shardio")._LAZY}


def _source(page: str, target: str) -> Path | None:
    """The file of the repository, outside docs/, that a link of `page` names; None where there is none."""
    path = ((DOCS / page).parent / target).resolve()
    if path.is_relative_to(DOCS) or not path.is_relative_to(ROOT) or not path.is_file():
        return None
    return path.relative_to(ROOT)


def _page_of(source: Path) -> str:
    return f"source/{source}.md"


def structures() -> list[str]:
    """The names of all structures of native/layout.h, in its order."""
    return re.findall(r"^struct (\w+) \{", (ROOT / "native" / "layout.h").read_text(), re.MULTILINE)


def structure(name: str) -> str:
    """The declaration of a structure of native/layout.h, as a block of code."""
    header = (ROOT / "native" / "layout.h").read_text()
    found = re.search(rf"^struct {name} \{{.*?^\}}[^;]*;", header, re.MULTILINE | re.DOTALL)
    if found is None:
        raise PluginError(f"native/layout.h has no struct {name}: correct the marker")
    return f"```c\n{found[0]}\n```"


def commands() -> Iterator[str]:
    """The Markdown of every command: what it does, and its arguments."""
    cli = import_module("shardio.cli")
    for name, command in cli.COMMANDS.items():
        module = import_module(command.module)
        parser = argparse.ArgumentParser(prog=f"shardio {name}", description=module.__doc__)
        module.add_arguments(parser)
        yield from _command(parser, _described(command.help, module.__doc__ or ""))


def _described(summary: str, docstring: str) -> str:
    """The Markdown of a command's help and of its docstring's other paragraphs, without the table of the
    commands below it, which follow.
    """
    found = [f"{summary[:1].upper()}{summary[1:]}."]
    for paragraph in docstring.strip().split("\n\n")[1:]:
        head, *lines = paragraph.splitlines()
        if head == "examples:":
            found.append("\n".join(["```console", *(f"$ {line.strip()}" for line in lines), "```"]))
        elif not TABLE.match(paragraph):
            found.append(paragraph)
    return "\n\n".join(found)


def _command(parser: argparse.ArgumentParser, described: str, level: int = 2) -> Iterator[str]:
    """The Markdown of one command, and of the commands below it."""
    yield f"\n{'#' * level} `{parser.prog}`\n\n{described}\n"
    usage = parser.format_usage().removeprefix("usage: ").replace("\n       ", "\n")
    yield f"```text\n{usage.strip()}\n```\n"
    rows = [row for action in parser._actions if (row := _row(action))]
    if rows:
        yield "\n".join(["| argument | meaning |", "|---|---|", *rows, ""])
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            helps = {choice.dest: choice.help or "" for choice in action._choices_actions}
            for name, below in action.choices.items():
                yield from _command(below, _described(helps.get(name, ""), ""), level + 1)


def _row(action: argparse.Action) -> str | None:
    """A line of the table of arguments; None for the help and for commands below this one."""
    below = isinstance(action, argparse._HelpAction | argparse._SubParsersAction)
    if below or action.help == argparse.SUPPRESS:
        return None
    values = "" if action.choices is None else "{" + ",".join(map(str, action.choices)) + "}"
    value = "" if action.nargs == 0 else action.metavar or values or action.dest.upper()
    names = [f"{option} {value}".strip() for option in action.option_strings] or [value]
    shown = ", ".join(f"`{name}`" for name in names)
    meaning = ((action.help or "") % vars(action)).replace("|", "\\|")
    return f"| {shown} | {meaning} |".replace("<", "&lt;")
