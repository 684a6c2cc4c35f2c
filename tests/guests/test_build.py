"""The guests' build: presets, parameters, cache."""

from __future__ import annotations

import pytest

from tests.guests.build import guest, parameters


def test_a_preset_is_in_the_block_at_its_address():
    image = guest("pio_loop", COUNT=0x1234)
    at = parameters("pio_loop")["count"] - 0x1000
    assert image[at : at + 4] == (0x1234).to_bytes(4, "little")


def test_the_block_begins_with_vcpus():
    assert next(iter(parameters("random_access").items())) == ("vcpus", 0x1010)


def test_an_unknown_preset_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="no preset COUNT: use EXIT_CODE, EXIT_PORT, PORT, VCPUS"):
        guest("hello", COUNT=1)


def test_numbered_presets_are_known():
    assert guest("random_access", R7_BASE=1) != guest("random_access", R7_BASE=2)
