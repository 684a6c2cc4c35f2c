"""Explores every interleaving of a few small programs over shared memory with store buffers (x86's TSO).

A thread is a list of instructions, tuples whose first item names them. A store enters the thread's buffer,
and its oldest entry reaches memory at any later step; a load sees the thread's own newest buffered store,
else memory; a fence or a locked instruction waits until the buffer is empty. Every reachable state is visited
once: what never goes wrong here cannot go wrong with these programs.

| instruction | effect |
|---|---|
| `("store", variable, value)` | into the buffer |
| `("load", register, variable)` | |
| `("xchg", variable, value)` | empty buffer, then memory: `sio_publish` |
| `("cas", register, variable, old, new)` | the register tells whether it swapped: `sio_swap_if` |
| `("fence",)` | empty buffer: `sio_fence_full` |
| `("membarrier",)` | every thread's buffer empty: `sio_membarrier` |
| `("wait", variable, value)` | like a futex: goes on when memory differs from `value`, or a `wake` came |
| `("wake", variable)` | lets those go on that wait on it |
| `("take", variable)` | like a read of an eventfd: waits until it is not 0, sets it to 0 |
| `("set", register, value)`, `("add", register, value)` | |
| `("if", register, value, label)`, `("ifnot", ...)`, `("goto", label)` | jumps |
| `("label", name)` | |
| `("check", register, value)` | the exploration fails where it differs |

Variables and values may be functions of the registers (a tuple of ints), for indexed accesses.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

Instruction = tuple[Any, ...]
Program = Sequence[Instruction]


class Thread(NamedTuple):
    """A thread's state: its next instruction, registers, store buffer, and the variable that it sleeps on."""

    at: int
    registers: tuple[tuple[str, int], ...]
    buffer: tuple[tuple[str, int], ...]
    asleep: str


class State(NamedTuple):
    """Memory and threads."""

    memory: tuple[tuple[str, int], ...]
    threads: tuple[Thread, ...]


class Failure(Exception):
    """A program failed: a check, or everyone waits for ever."""


def explore(programs: Sequence[Program], memory: Mapping[str, int]) -> int:
    """Visit every reachable state; how many there are. Raises `Failure` at a failed check, and for a state
    from which the threads cannot all come to their end: one sleeps, or spins, for ever.
    """
    labels = [{step[1]: n for n, step in enumerate(program) if step[0] == "label"} for program in programs]
    start = State(tuple(sorted(memory.items())), tuple(Thread(0, (), (), "") for _ in programs))
    before: dict[State, list[State]] = {start: []}
    todo = [start]
    while todo:
        state = todo.pop()
        for number, program in enumerate(programs):
            for after in _steps(state, number, program, labels[number]):
                if after not in before:
                    before[after] = []
                    todo.append(after)
                before[after].append(state)
    _check_that_each_can_end(programs, before)
    return len(before)


def _check_that_each_can_end(programs: Sequence[Program], before: Mapping[State, list[State]]) -> None:
    can_end = {
        state
        for state in before
        if all(
            t.at == len(programs[n]) and not t.asleep and not t.buffer for n, t in enumerate(state.threads)
        )
    }
    todo = list(can_end)
    while todo:
        for earlier in before[todo.pop()]:
            if earlier not in can_end:
                can_end.add(earlier)
                todo.append(earlier)
    for state in before:
        if state not in can_end:
            raise Failure(f"stuck in {state}")


def _steps(state: State, number: int, program: Program, labels: Mapping[str, int]) -> list[State]:
    thread = state.threads[number]
    found = []
    if thread.buffer:
        (variable, value), *rest = thread.buffer
        found.append(_with(state, number, thread._replace(buffer=tuple(rest)), {variable: value}))
    if thread.at < len(program) and not thread.asleep:
        after = _run(state, number, program[thread.at], labels)
        if after is not None:
            found.append(after)
    return found


def _with(state: State, number: int, thread: Thread, changes: Mapping[str, int]) -> State:
    threads = list(state.threads)
    threads[number] = thread
    memory = state.memory
    if changes:
        memory = tuple(sorted({**dict(memory), **changes}.items()))
    return State(memory, tuple(threads))


def _run(state: State, number: int, instruction: Instruction, labels: Mapping[str, int]) -> State | None:
    """The state after one instruction; None where it has to wait."""
    thread = state.threads[number]
    registers, memory = dict(thread.registers), dict(state.memory)
    kind, *raw = instruction
    arguments = [item(registers) if isinstance(item, Callable) else item for item in raw]  # type: ignore[arg-type]

    def next_(changes: Mapping[str, int] | None = None, at: int | None = None, **fields: Any) -> State:
        moved = thread._replace(
            at=thread.at + 1 if at is None else at, registers=tuple(sorted(registers.items()))
        )
        return _with(state, number, moved._replace(**fields), changes or {})

    match kind, arguments:
        case "store", [variable, value]:
            return next_(buffer=(*thread.buffer, (variable, value)))
        case "load", [register, variable]:
            own = [value for name, value in thread.buffer if name == variable]
            registers[register] = own[-1] if own else memory[variable]
            return next_()
        case "xchg", [variable, value]:
            return None if thread.buffer else next_({variable: value})
        case "cas", [register, variable, old, new]:
            if thread.buffer:
                return None
            registers[register] = int(memory[variable] == old)
            return next_({variable: new} if registers[register] else {})
        case "fence", []:
            return None if thread.buffer else next_()
        case "membarrier", []:
            return None if any(other.buffer for other in state.threads) else next_()
        case "wait", [variable, value]:
            if thread.buffer:
                return None
            return next_() if memory[variable] != value else next_(asleep=variable)
        case "wake", [variable]:
            threads = [
                other._replace(asleep="") if other.asleep == variable else other for other in next_().threads
            ]
            return State(state.memory, tuple(threads))
        case "take", [variable]:
            return None if thread.buffer or memory[variable] == 0 else next_({variable: 0})
        case "set", [register, value]:
            registers[register] = value
            return next_()
        case "add", [register, value]:
            registers[register] += value
            return next_()
        case "if", [register, value, label]:
            return next_(at=labels[label] if registers[register] == value else None)
        case "ifnot", [register, value, label]:
            return next_(at=labels[label] if registers[register] != value else None)
        case "goto", [label]:
            return next_(at=labels[label])
        case "label", [_]:
            return next_()
        case "check", [register, value]:
            if registers[register] != value:
                raise Failure(f"{register} is {registers[register]}, not {value}, in {state}")
            return next_()
    raise ValueError(f"no instruction {instruction}")


def changed(program: Program, old: Instruction, new: Sequence[Instruction]) -> Program:
    """A mutant: every `old` instruction replaced. Raises `ValueError` where there is none."""
    if old not in program:
        raise ValueError(f"{old} is not in the program")
    return [step for instruction in program for step in (new if instruction == old else [instruction])]
