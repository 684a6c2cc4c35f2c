"""SP-QUIESCE, a change of the address map against an access, in every interleaving under store buffering:
once the VMM has waited, no access goes where a device was; each mutant that lacks a fence sends one there.

The programs are native/client.c's `begin`, the look at the map and `sio_client_complete`, against
native/route.c's `sio_map_publish` with shardio/routing.py's `quiesce`. `gone` stands for whatever comes after
it: the shard drops the device, the range's number goes to the next one.
"""

from __future__ import annotations

import pytest

from tests.native.explorer import Failure, Program, changed, explore

MARK = ("store", "pending", 1)
FENCE = ("fence",)
LOOK = ("load", "generation", "generation")
END = ("store", "pending", 0)
ACCESS = ("load", "gone", "gone")

CLIENT: Program = [
    MARK,
    FENCE,
    LOOK,
    ("if", "generation", 1, "moved"),
    ACCESS,
    ("check", "gone", 0),
    ("label", "moved"),
    END,
]
CLIENT_WITHOUT_FENCE = changed(CLIENT, FENCE, [])

PUBLISH = ("xchg", "generation", 1)
VMM: Program = [
    PUBLISH,
    ("label", "wait"),
    ("load", "pending", "pending"),
    ("if", "pending", 1, "wait"),
    ("store", "gone", 1),
]
VMM_WITH_MEMBARRIER = changed(VMM, PUBLISH, [PUBLISH, ("membarrier",)])

MEMORY = {"pending": 0, "generation": 0, "gone": 0}


@pytest.mark.parametrize(
    "programs",
    [(CLIENT_WITHOUT_FENCE, VMM_WITH_MEMBARRIER), (CLIENT, VMM)],
    ids=["membarrier", "fences"],
)
def test_no_access_goes_where_a_device_was(programs: tuple[Program, Program]) -> None:
    assert explore(programs, MEMORY) > 20


@pytest.mark.parametrize(
    "programs",
    [
        (CLIENT_WITHOUT_FENCE, VMM),
        (CLIENT, changed(VMM, PUBLISH, [("store", "generation", 1)])),
        (changed(changed(CLIENT_WITHOUT_FENCE, MARK, []), LOOK, [LOOK, MARK]), VMM_WITH_MEMBARRIER),
        (changed(changed(CLIENT, END, []), ACCESS, [END, ACCESS]), VMM),
    ],
    ids=["client-without-fence", "vmm-without-fence", "marked-after-the-look", "ended-before-the-access"],
)
def test_without_one_of_the_rules_an_access_goes_where_a_device_was(
    programs: tuple[Program, Program],
) -> None:
    with pytest.raises(Failure, match="gone is 1"):
        explore(programs, MEMORY)
