"""docs/reference/configuration.md says what shardio.config has: the same keys, the same defaults."""

from __future__ import annotations

import re
from typing import Any

import msgspec
import pytest

from shardio.config import DEVICE_KEYS, MACHINE_KEYS, DeviceConfig, MachineConfig
from shardio.memory import parse_size
from tests.docs.walkthrough import DOCS

PAGE = (DOCS / "reference" / "configuration.md").read_text()
ROW = re.compile(r"^\| (.+?) \| (.+?) \| (.+?) \| .* \|$", re.MULTILINE)
WORDS: dict[str, Any] = {"none": None, "empty": "", "true": True, "false": False}


def rows(section: str) -> dict[str, str]:
    """Key -> default, as the section's table tells them."""
    text = PAGE.partition(f"\n## `{section}`\n")[2].partition("\n## ")[0]
    found = {
        key: default
        for keys, _, default in ROW.findall(text)
        for key in re.findall(r"`(\w+)`", keys)
    }  # fmt: skip
    assert found
    return found


def told(default: str) -> Any:
    """The value that a default's text stands for; None for words on what is worked out."""
    text = default.strip("`")
    if text in WORDS:
        return WORDS[text]
    if text.startswith('"'):
        return parse_size(text.strip('"'))
    if re.fullmatch(r"0x[0-9a-f]+|\d+", text):
        return int(text, 0)
    return text if default.startswith("`") and " " not in default else None


def real(struct: type[msgspec.Struct]) -> dict[str, Any]:
    """Key -> default, of the structure; an empty list or table counts as none."""
    fields = msgspec.structs.fields(struct)
    defaults = {field.name: field.default for field in fields if field.default is not msgspec.NODEFAULT}
    return {name: None if default in ((), {}) else default for name, default in defaults.items()}


@pytest.mark.parametrize(("section", "keys"), [("[machine]", MACHINE_KEYS), ("[[device]]", DEVICE_KEYS)])
def test_every_row_is_a_key_and_every_key_has_a_row(section: str, keys: tuple[str, ...]) -> None:
    assert sorted(rows(section)) == sorted(keys)


@pytest.mark.parametrize(
    ("section", "struct"), [("[machine]", MachineConfig), ("[[device]]", DeviceConfig)]
)
def test_defaults_are_those_of_the_code(section: str, struct: type[msgspec.Struct]) -> None:
    shown = rows(section)

    assert {key: told(shown[key]) for key in real(struct) if key in shown} == {
        key: default for key, default in real(struct).items() if key in shown
    }
