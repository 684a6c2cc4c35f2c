"""The how-to guides: the code that each one shows does what the page says that it prints."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs.walkthrough import DOCS, follow


@pytest.mark.machine
def test_own_vmm(cpu: str, tmp_path: Path) -> None:
    assert follow(DOCS / "how-to" / "own_vmm.md", tmp_path) == []


@pytest.mark.parametrize(
    "name",
    [
        "own_vcpus", "posted_writes", "raise_interrupts", "record_and_replay", "recovery_policies", "tracing",
        "virtio_device",
    ],
)
def test_how_to(name: str, tmp_path: Path) -> None:
    assert follow(DOCS / "how-to" / f"{name}.md", tmp_path) == []
