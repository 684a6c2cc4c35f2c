"""One debugger's conversation: its packets are answered, and it is told when the guest stops.

Source: "Debugging with GDB", appendix E (GDB Remote Serial Protocol): packets in E.2 and E.4, stop replies in
E.3. A packet that is not known gets an empty answer, as the protocol wants; one that makes no sense, or
cannot be done, an error with its reason.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from shardio.errors import DebuggerError, ShardioError
from shardio.gdb.registers import Architecture, set_register, values
from shardio.gdb.rsp import MOST_BYTES, escape
from shardio.gdb.target import Mode, Target
from shardio.vcpu import DebugStop, Vcpu, Watch

SIGINT, SIGTRAP, SIGSEGV, NO_SIGNAL = 2, 5, 11, 0
"""GDB's own numbers of signals."""
_WATCHED: Final = {"2": "write", "3": "read", "4": "access"}
_WATCH_REPLIES: Final = {"write": "watch", "read": "rwatch", "access": "awatch"}
_ALL: Final = -1
_ANY: Final = 0
_MOST_MEMORY: Final = MOST_BYTES // 2 - 16
"""Bytes of memory in one answer, two digits each."""


class Ended(Exception):
    """The conversation is over. `kill`: the machine is to end too."""

    def __init__(self, answer: bytes | None, *, kill: bool = False) -> None:
        super().__init__(answer)
        self.answer, self.kill = answer, kill


class Session:
    """A debugger's that has just come; the guest stands still for it. `running`: it waits for a stop."""

    def __init__(self, target: Target, architecture: Architecture) -> None:
        self.running = False
        self.acknowledges = True
        self._target, self._architecture = target, architecture
        self._chosen = {"g": 1, "c": _ALL}
        """Threads by the kind of operation; a thread's id is its vCPU's number + 1."""
        self._features: set[str] = set()
        self._last = b""
        self._handlers: dict[str, Callable[[str], str | bytes | None]] = {
            "?": lambda _: self._first_stop(),
            "!": lambda _: "",
            "g": self._read_registers,
            "G": self._write_registers,
            "p": self._read_register,
            "P": self._write_register,
            "m": self._read_memory,
            "M": self._write_memory,
            "c": lambda rest: self._simple(Mode.GO, rest),
            "C": lambda rest: self._simple(Mode.GO, rest.partition(";")[2]),
            "s": lambda rest: self._simple(Mode.STEP, rest),
            "S": lambda rest: self._simple(Mode.STEP, rest.partition(";")[2]),
            "H": self._choose_thread,
            "T": self._alive,
            "Z": lambda rest: self._point(rest, there=True),
            "z": lambda rest: self._point(rest, there=False),
            "q": self._query,
            "Q": self._set,
            "v": self._verbose,
            "D": lambda _: self._detach(),
            "k": lambda _: self._kill(None),
        }

    # ---- what comes ----

    def answer(self, body: bytes) -> bytes | None:
        """The answer to a packet; None for one that is answered by a stop. Raises `Ended`."""
        try:
            if body[:1] == b"X":
                answer: str | bytes | None = self._write_binary(body[1:])
            else:
                text = body.decode("ascii")
                handler = self._handlers.get(text[:1])
                answer = "" if handler is None else handler(text[1:])
        except ShardioError as error:
            answer = _error(error.message)
        except (ValueError, IndexError, OverflowError):  # numbers and text that are none
            answer = _error("malformed packet")
        return answer.encode("ascii", "replace") if isinstance(answer, str) else answer

    def interrupt(self) -> bytes | None:
        """The user wants the guest to stop. None where it stands still."""
        if not self.running:
            return None
        self._target.stop()
        return self.news() or self._stopped(None, DebugStop("halt"))

    def news(self) -> bytes | None:
        """The stop that a running guest has come to, None without one."""
        if not self.running:
            return None
        found = self._target.next_stop()
        if found is None:
            return None
        self._target.stop()
        return self._stopped(*found)

    # ---- stops ----

    def _first_stop(self) -> bytes:
        found = self._target.next_stop()
        return self._stopped(*found) if found else self._last or self._stopped(None, DebugStop("trap"))

    def _stopped(self, vcpu: Vcpu | None, stop: DebugStop) -> bytes:
        """The stop reply. A vCPU that was not the cause is one that stands still."""
        self.running = False
        if vcpu is None:
            vcpus = self._target.vcpus
            vcpu = next((each for each in vcpus if self._target.stands(each)), vcpus[0])
        self._chosen["g"] = vcpu.index + 1
        signal = {"halt": SIGINT, "fault": SIGSEGV}.get(stop.kind, SIGTRAP)
        more = ""
        if stop.kind == "breakpoint" and "swbreak+" in self._features:
            more = "swbreak:;"
        elif stop.kind == "hardware" and "hwbreak+" in self._features:
            more = "hwbreak:;"
        elif stop.watch is not None:
            more = f"{_WATCH_REPLIES[stop.watch.kind]}:{stop.watch.address:x};"
        self._last = f"T{signal:02x}{more}thread:{vcpu.index + 1:x};".encode()
        return self._last

    # ---- registers ----

    def _read_registers(self, _: str) -> bytes:
        return self._architecture.block(values(self._architecture, self._vcpu("g")))

    def _read_register(self, rest: str) -> bytes | str:
        number = int(rest, 16)
        registers = self._architecture.registers
        if number >= len(registers):
            return "E01"
        return self._architecture.one(registers[number], values(self._architecture, self._vcpu("g")))

    def _write_registers(self, rest: str) -> str:
        vcpu, at = self._vcpu("g"), 0
        now = values(self._architecture, vcpu)
        for register in self._architecture.registers:
            digits = rest[at : at + 2 * register.size]
            at += len(digits)
            if digits and "x" not in digits and register.name in now:
                set_register(vcpu, register, int.from_bytes(bytes.fromhex(digits), "little"), now)
        return "OK"

    def _write_register(self, rest: str) -> str:
        number, _, digits = rest.partition("=")
        register = self._architecture.registers[int(number, 16)]
        value, vcpu = int.from_bytes(bytes.fromhex(digits), "little"), self._vcpu("g")
        set_register(vcpu, register, value, values(self._architecture, vcpu))
        return "OK"

    # ---- memory ----

    def _read_memory(self, rest: str) -> str:
        address, length = _numbers(rest)
        found = self._target.read(self._vcpu("g"), address, min(length, _MOST_MEMORY))
        if length and not found:
            raise DebuggerError(f"{address:#x} is not in RAM")
        return found.hex()

    def _write_memory(self, rest: str) -> str:
        where, _, digits = rest.partition(":")
        return self._write(where, bytes.fromhex(digits))

    def _write_binary(self, rest: bytes) -> str:
        where, _, data = rest.partition(b":")
        return self._write(where.decode("ascii"), data)

    def _write(self, where: str, data: bytes) -> str:
        address, length = _numbers(where)
        if length != len(data):
            raise DebuggerError(f"{len(data)} bytes of {length}")
        self._target.write(self._vcpu("g"), address, data)
        return "OK"

    # ---- going on ----

    def _simple(self, mode: Mode, rest: str) -> bytes | None:
        if rest:
            self._vcpu("c").registers["rip"] = int(rest, 16)
        chosen = self._chosen["c"]
        if chosen in (_ALL, _ANY):
            chosen = self._chosen["g"] if mode is Mode.STEP else _ALL
        modes = {vcpu.index: mode for vcpu in self._target.vcpus if chosen in (_ALL, vcpu.index + 1)}
        return self._go_on(modes)

    def _go_on(self, modes: dict[int, Mode]) -> bytes | None:
        if not modes:
            raise DebuggerError("no such thread")
        self.running = True
        try:
            if self._target.go_on(modes):
                return None
        except BaseException:
            self.running = False
            raise
        return self.news()

    def _continue(self, rest: str) -> bytes | None:
        modes: dict[int, Mode] = {}
        for action in rest.split(";"):
            what, _, thread = action.partition(":")
            mode = {"c": Mode.GO, "s": Mode.STEP}.get(what[:1].lower())
            if mode is None:
                raise DebuggerError(f"no action {what}")
            wanted = _thread_id(thread) if thread else _ALL
            for vcpu in self._target.vcpus:
                if wanted in (_ALL, vcpu.index + 1):
                    modes.setdefault(vcpu.index, mode)
        return self._go_on(modes)

    def _detach(self) -> str:
        raise Ended(b"OK")

    def _kill(self, answer: bytes | None) -> str:
        raise Ended(answer, kill=True)

    # ---- threads, breakpoints ----

    def _vcpu(self, operation: str) -> Vcpu:
        vcpus, chosen = self._target.vcpus, self._chosen[operation]
        vcpu = vcpus[chosen - 1] if 0 < chosen <= len(vcpus) else vcpus[0]
        if not self._target.stands(vcpu):
            raise DebuggerError(f"vCPU {vcpu.index} does not stand still: it waits for a device")
        return vcpu

    def _choose_thread(self, rest: str) -> str:
        operation, thread = rest[:1], _thread_id(rest[1:])
        if operation not in self._chosen or thread > len(self._target.vcpus):
            return "E01"
        if operation == "c" or thread > 0:
            self._chosen[operation] = thread
        return "OK"

    def _alive(self, rest: str) -> str:
        return "OK" if 0 < _thread_id(rest) <= len(self._target.vcpus) else "E01"

    def _point(self, rest: str, *, there: bool) -> str:
        kind, address_text, length_text = rest.partition(";")[0].split(",")
        address, length = int(address_text, 16), int(length_text, 16)
        breakpoints = self._target.breakpoints
        if kind == "0":
            (breakpoints.add if there else breakpoints.remove)(address)
        elif kind == "1":
            breakpoints.set_hardware(address, there)
        elif kind in _WATCHED:
            breakpoints.set_watch(Watch(address, length, _WATCHED[kind]), there)
        else:
            return ""
        return "OK"

    # ---- what it asks and tells ----

    def _query(self, rest: str) -> str | bytes:
        name, _, argument = rest.partition(":")
        if name == "Supported":
            self._features = set(argument.split(";"))
            return (
                f"PacketSize={MOST_BYTES:x};QStartNoAckMode+;qXfer:features:read+;vContSupported+;"
                "swbreak+;hwbreak+"
            )
        if name == "Xfer":
            return self._transfer(argument)
        if name == "fThreadInfo":
            return "m" + ",".join(f"{vcpu.index + 1:x}" for vcpu in self._target.vcpus)
        if name == "sThreadInfo":
            return "l"
        if name == "C":
            return f"QC{self._chosen['g']:x}"
        if name == "Attached":
            return "1"
        if (found := re.fullmatch(r"ThreadExtraInfo,([0-9a-fA-F]+)", rest)) is not None:
            return self._describe(int(found[1], 16)).encode().hex()
        return ""

    def _describe(self, thread: int) -> str:
        vcpus = self._target.vcpus
        return f"vCPU {thread - 1}, {vcpus[thread - 1].state.name}" if 0 < thread <= len(vcpus) else "none"

    def _transfer(self, argument: str) -> bytes | str:
        kind, action, annex, part = argument.split(":")
        if (kind, action) != ("features", "read"):
            return ""
        if annex != "target.xml":
            return "E00"
        start, length = _numbers(part)
        text = self._architecture.description()
        found = text[start : start + min(length, _MOST_MEMORY)]
        return (b"m" if start + len(found) < len(text) else b"l") + escape(found)

    def _set(self, rest: str) -> str:
        if rest == "StartNoAckMode":
            self.acknowledges = False
            return "OK"
        return ""

    def _verbose(self, rest: str) -> str | bytes | None:
        if rest == "Cont?":
            return "vCont;c;C;s;S"
        if rest.startswith("Cont;"):
            return self._continue(rest.removeprefix("Cont;"))
        if rest.startswith("Kill"):
            return self._kill(b"OK")
        return ""


def _numbers(text: str) -> tuple[int, int]:
    first, second = text.split(",")
    return int(first, 16), int(second, 16)


def _thread_id(text: str) -> int:
    """A thread's number, -1 for all of them; that of another process is none."""
    return int(text.removeprefix("p1."), 16)


def _error(reason: str) -> str:
    return "E." + re.sub(r"[^ -~]|[#$}*]", "?", reason)
