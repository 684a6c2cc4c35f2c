"""`shardio.interrupt.group` and `msix`: one function's vectors, mode switches, and the table that the
guest writes.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardio.errors import InterruptError
from shardio.interrupt import (
    InterruptGroup,
    InterruptManager,
    InterruptMode,
    LegacyConfig,
    MsiConfig,
    MsixTable,
    RecordingBackend,
)
from shardio.interrupt.msix import CONTROL_ENABLE, CONTROL_FUNCTION_MASK


@pytest.fixture
def backend() -> Iterator[RecordingBackend]:
    with RecordingBackend(dynamic_gsis=8) as backend:
        yield backend


@pytest.fixture
def group(backend: RecordingBackend) -> Iterator[InterruptGroup]:
    with InterruptManager(backend) as interrupts:
        yield interrupts.group(3, LegacyConfig(line=10, pin=1))


@pytest.fixture
def table(group: InterruptGroup) -> MsixTable:
    return MsixTable(group)


def program(table: MsixTable, index: int, address: int, data: int, *, masked: bool = False) -> None:
    """What a guest does: address, data, then the mask."""
    table.write(16 * index, 4, address & 0xFFFFFFFF)
    table.write(16 * index + 4, 4, address >> 32)
    table.write(16 * index + 8, 4, data)
    table.write(16 * index + 12, 4, int(masked))


# -- groups ---------------------------------------------------------------------------------------------


def test_without_a_mode_nothing_is_delivered(group: InterruptGroup, backend: RecordingBackend) -> None:
    group[0].trigger()

    assert (group.mode, backend.irqfds) == (None, {})


def test_intx_vectors_share_one_line(group: InterruptGroup, backend: RecordingBackend) -> None:
    group.switch(InterruptMode.INTX)
    group[0].trigger()
    group[2].trigger()
    raised = backend.delivered(gsi=10)
    group.deassert()

    assert raised == 1
    assert group.line is not None
    assert not group.line.active


def test_msi_vectors_have_consecutive_data(group: InterruptGroup, backend: RecordingBackend) -> None:
    group.switch(InterruptMode.MSI)
    group.configure_msi(MsiConfig(0xFEE0_0000, 0x43))
    for vector in group:
        vector.trigger()

    assert [i.config and i.config.data for i in group.messages] == [0x40, 0x41, 0x42]
    assert [backend.delivered(i.gsi) for i in group.messages] == [1, 1, 1]


def test_a_switch_frees_what_the_old_mode_held(group: InterruptGroup, backend: RecordingBackend) -> None:
    group.switch(InterruptMode.MSIX)
    group.switch(InterruptMode.INTX)

    assert [irqfd.gsi for irqfd in backend.irqfds.values()] == [10]


def test_a_vector_outlives_the_switch(group: InterruptGroup, backend: RecordingBackend) -> None:
    vector = group[1]
    group.switch(InterruptMode.MSI)
    group.switch(InterruptMode.INTX)
    vector.trigger()

    assert backend.delivered(gsi=10) == 1


def test_a_switch_that_finds_too_few_vectors_leaves_no_mode() -> None:
    with RecordingBackend(dynamic_gsis=2) as backend, InterruptManager(backend) as interrupts:
        group = interrupts.group(3)
        with pytest.raises(InterruptError, match="no free GSI"):
            group.switch(InterruptMode.MSIX)

        assert (group.mode, backend.irqfds) == (None, {})


def test_intx_needs_a_line(backend: RecordingBackend) -> None:
    with InterruptManager(backend) as interrupts, pytest.raises(InterruptError, match="no legacy line"):
        interrupts.group(1).switch(InterruptMode.INTX)


def test_msi_has_at_most_32_vectors(backend: RecordingBackend) -> None:
    with InterruptManager(backend) as interrupts, pytest.raises(InterruptError, match="33 vectors"):
        interrupts.group(33).switch(InterruptMode.MSI)


@pytest.mark.parametrize("count", [0, 2049])
def test_a_group_has_1_to_2048_vectors(backend: RecordingBackend, count: int) -> None:
    with InterruptManager(backend) as interrupts, pytest.raises(InterruptError, match="vectors"):
        interrupts.group(count)


def test_configure_msi_needs_msi_mode(group: InterruptGroup) -> None:
    with pytest.raises(InterruptError, match="not in MSI mode"):
        group.configure_msi(MsiConfig(0, 0))


# -- the MSI-X table ------------------------------------------------------------------------------------


def test_after_reset_every_vector_is_masked(table: MsixTable) -> None:
    assert [table.read(16 * index + 12, 4) for index in range(3)] == [1, 1, 1]
    assert table.read_control() == 2


def test_an_unmasked_vector_delivers_its_message(
    table: MsixTable, group: InterruptGroup, backend: RecordingBackend
) -> None:
    table.write_control(CONTROL_ENABLE)
    program(table, 1, 0x1_FEE0_1000, 0x51)
    group[1].trigger()

    assert group.messages[1].config == MsiConfig(0x1_FEE0_1000, 0x51)
    assert backend.delivered(group.messages[1].gsi) == 1


def test_what_was_programmed_before_enabling_counts(table: MsixTable, group: InterruptGroup) -> None:
    program(table, 0, 0xFEE0_0000, 0x31)
    table.write_control(CONTROL_ENABLE)

    assert group.messages[0].config == MsiConfig(0xFEE0_0000, 0x31)


def test_a_masked_vector_sets_its_pending_bit_and_delivers_on_unmask(
    table: MsixTable, group: InterruptGroup, backend: RecordingBackend
) -> None:
    table.write_control(CONTROL_ENABLE)
    program(table, 1, 0xFEE0_0000, 0x31, masked=True)
    group[1].trigger()
    gsi = group.messages[1].gsi
    pending = (table.read_pba(0, 8), backend.delivered(gsi))
    table.write(16 + 12, 4, 0)

    assert pending == (0b010, 0)
    assert (table.read_pba(0, 8), backend.delivered(gsi)) == (0, 1)


def test_the_function_mask_holds_every_vector_back(
    table: MsixTable, group: InterruptGroup, backend: RecordingBackend
) -> None:
    program(table, 0, 0xFEE0_0000, 0x31)
    program(table, 2, 0xFEE0_0000, 0x32)
    table.write_control(CONTROL_ENABLE | CONTROL_FUNCTION_MASK)
    group[0].trigger()
    group[2].trigger()
    held = table.read_pba(0, 4)
    table.write_control(CONTROL_ENABLE)

    assert held == 0b101
    assert [backend.delivered(i.gsi) for i in group.messages] == [1, 0, 1]


def test_a_message_changed_while_masked_is_used_on_unmask(table: MsixTable, group: InterruptGroup) -> None:
    table.write_control(CONTROL_ENABLE)
    program(table, 0, 0xFEE0_0000, 0x31)
    program(table, 0, 0xFEE0_2000, 0x77)

    assert group.messages[0].config == MsiConfig(0xFEE0_2000, 0x77)


def test_disabling_frees_the_vectors(table: MsixTable, backend: RecordingBackend) -> None:
    table.write_control(CONTROL_ENABLE)
    table.write_control(0)

    assert backend.irqfds == {}


def test_reset_masks_and_disables(table: MsixTable, backend: RecordingBackend) -> None:
    table.write_control(CONTROL_ENABLE)
    program(table, 0, 0xFEE0_0000, 0x31)
    table.reset()

    assert (table.enabled, table.read(0, 8), table.read(12, 4), backend.irqfds) == (False, 0, 1, {})


def test_a_quadword_reads_back_what_was_written(table: MsixTable) -> None:
    table.write(16, 8, 0x1_FEE0_1000)
    table.write(24, 8, 0x0000_0000_0000_0044)

    assert (table.read(16, 4), table.read(20, 4), table.read(24, 8)) == (0xFEE0_1000, 1, 0x44)


@pytest.mark.parametrize(("offset", "size"), [(0, 1), (0, 2), (2, 4), (4, 8), (48, 4), (44, 8)])
def test_other_accesses_read_zero_and_write_nothing(table: MsixTable, offset: int, size: int) -> None:
    before = [table.read(4 * word, 4) for word in range(12)]
    table.write(offset, size, 0xFF)

    assert table.read(offset, size) == 0
    assert table.read_pba(offset or 64, size) == 0
    assert [table.read(4 * word, 4) for word in range(12)] == before


@given(
    st.lists(
        st.tuples(st.sampled_from(["trigger", "mask", "unmask", "function"]), st.integers(0, 2)), max_size=30
    )
)
def test_no_cause_is_lost(operations: list[tuple[str, int]]) -> None:
    """Each vector triggered is delivered at once, or pending until both masks are lifted."""
    with RecordingBackend() as backend, InterruptManager(backend) as interrupts:
        group = interrupts.group(3)
        table = MsixTable(group)
        table.write_control(CONTROL_ENABLE)
        for index in range(3):
            program(table, index, 0xFEE0_0000, index)
        triggered = [False] * 3
        for operation, index in operations:
            match operation:
                case "trigger":
                    group[index].trigger()
                    triggered[index] = True
                case "function":
                    table.write_control(CONTROL_ENABLE | CONTROL_FUNCTION_MASK * (index % 2))
                case _:
                    table.write(16 * index + 12, 4, int(operation == "mask"))
        table.write_control(CONTROL_ENABLE)
        for index in range(3):
            table.write(16 * index + 12, 4, 0)

        assert [backend.delivered(i.gsi) > 0 for i in group.messages] == triggered
        assert table.read_pba(0, 8) == 0


@pytest.mark.parametrize(("count", "mode"), [(32, InterruptMode.MSI), (33, InterruptMode.MSIX)])
def test_msi_has_32_vectors_and_more_are_msix(count: int, mode: InterruptMode) -> None:
    with RecordingBackend() as backend, InterruptManager(backend) as interrupts:
        group = interrupts.group(count)
        group.switch(mode)

        assert len(group.messages) == count


def test_the_low_bits_of_a_message_address_are_not_the_guests(
    table: MsixTable, backend: RecordingBackend
) -> None:
    program(table, 0, 0xFEE0_0003, 0x40)
    table.write_control(CONTROL_ENABLE)

    assert {route.address for route in backend.routes.values()} == {0xFEE0_0000}


def test_pending_bits_are_read_by_words() -> None:
    with RecordingBackend() as backend, InterruptManager(backend) as interrupts:
        group = interrupts.group(40)
        table = MsixTable(group)
        table.write_control(CONTROL_ENABLE)
        for vector in group:
            vector.trigger()

        assert (table.read_pba(0, 4), table.read_pba(4, 4)) == (0xFFFF_FFFF, 0xFF)
