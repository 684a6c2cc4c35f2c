"""`shardio run` from outside, on real KVM: what the guest says, how it ends, and what is left: nothing."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from tests.boot.images import Part, bzimage, elf32
from tests.e2e.support import console, read_until
from tests.guests.build import guest, program
from tests.trace.reading import read

ROOT = Path(__file__).resolve().parent.parent.parent
SHARDIO = [sys.executable, "-m", "shardio"]
HELLO = b"Hello from the guest"

pytestmark = [pytest.mark.kvm, pytest.mark.timeout(60)]

isolated = pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("unshare") or not shutil.which("setpriv"),
    reason="needs root and util-linux's unshare and setpriv, for a mount namespace of its own",
)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """The hello guest; it ends with status 42 from a raw exit port."""
    file = tmp_path / "hello.bin"
    file.write_bytes(guest("hello", EXIT_CODE=42))
    return file


@pytest.fixture
def kernel(tmp_path: Path) -> Path:
    """The tiny bzImage, which says what it was given on COM1."""
    file = tmp_path / "bzImage"
    file.write_bytes(bzimage(guest("boot_linux")))
    return file


@pytest.fixture
def sleeper(tmp_path: Path) -> Path:
    """A guest that says READY and runs on for ever."""
    file = tmp_path / "sleeper.bin"
    code = b"".join(b"\xb0" + bytes([char]) + b"\xee" for char in b"READY")
    file.write_bytes(b"\xba\xf8\x03" + code + b"\xf4\xeb\xfd")
    return file


@pytest.fixture
def echo(tmp_path: Path) -> Path:
    """A guest that sends back what COM1 receives, up to a "q", and ends with that as its status."""
    file = tmp_path / "echo.bin"
    text = """
        .code16
    next:
        mov $0x3fd, %dx
    wait:
        in %dx, %al
        test $1, %al
        jz wait
        mov $0x3f8, %dx
        in %dx, %al
        out %al, %dx
        cmp $'q', %al
        jne next
        out %al, $0xf4
        hlt
    """
    file.write_bytes(program(text))
    return file


@pytest.fixture
def environment() -> dict[str, str]:
    """Ours, with the tree importable from any folder."""
    return {**os.environ, "PYTHONPATH": str(ROOT)}


def shardio(
    *words: object, environment: dict[str, str], before: str = ""
) -> subprocess.CompletedProcess[bytes]:
    """Runs the command to its end; `before` is shell text to run first, in a mount namespace of its own."""
    command = [*SHARDIO, *map(str, words)]
    if before:
        command = ["unshare", "-m", "sh", "-c", f'{before}; exec "$@"', "sh", *command]
    return subprocess.run(
        command, env=environment, capture_output=True, stdin=subprocess.DEVNULL, check=False
    )


def is_one_error(output: bytes, *parts: str) -> bool:
    """Whether the output is one error line with a hint and all the parts."""
    text = output.decode()
    shaped = text.startswith("shardio: error: ") and text.endswith(")\n") and text.count("\n") == 1
    return shaped and all(part in text for part in parts)


def test_hello(image: Path, environment: dict[str, str]) -> None:
    done = shardio("run", "--image", image, "--entry", "0x1000", environment=environment)

    assert HELLO in done.stdout
    assert done.returncode == 42 << 1 | 1
    assert b"com1" in done.stderr
    assert b"exit" in done.stderr


def test_a_kernel_is_given_its_command_line_and_its_initrd(
    kernel: Path, environment: dict[str, str]
) -> None:
    initrd = kernel.with_name("initrd")
    initrd.write_bytes(b"the initrd")
    options = ("--initrd", initrd, "--append", "console=ttyS0 panic=-1")

    done = shardio("run", "--kernel", kernel, *options, environment=environment)

    assert b"6\x10\x18console=ttyS0 panic=-1\0the initrd" in done.stdout
    assert done.returncode == 0 << 1 | 1


def test_a_payload_finds_its_table(tmp_path: Path, environment: dict[str, str]) -> None:
    file = tmp_path / "payload.elf"
    file.write_bytes(elf32(Part(guest("boot_payload"), 0x10_0000), entry=0x10_0000))

    done = shardio("run", "--payload", file, environment=environment)

    assert b"3\x08\x10LBIO" in done.stdout
    assert done.returncode == 0 << 1 | 1


def test_a_file_that_is_no_kernel(image: Path, environment: dict[str, str]) -> None:
    done = shardio("run", "--kernel", image, environment=environment)

    assert done.returncode == 2
    assert is_one_error(done.stderr, "hello.bin: magic at offset 0x0: expected an ELF", "load()")


def test_configuration_file(image: Path, environment: dict[str, str]) -> None:
    file = image.with_name("machine.toml")
    file.write_text(
        """
        [machine]
        image = "hello.bin"
        [[device]]
        type = "shardio.devices:Uart16550"
        pio = 0x3f8
        irq = 4
        shard = "serial"
        [[device]]
        type = "shardio.devices:ExitPort"
        pio = 0xf4
        raw = true
        """
    )

    done = shardio("run", file, environment=environment)

    assert (HELLO in done.stdout, done.returncode) == (True, 42)
    assert b"serial" in done.stderr


def test_output_goes_to_a_descriptor_that_the_file_passes(image: Path, environment: dict[str, str]) -> None:
    file, log = image.with_name("machine.toml"), image.with_name("log")
    file.write_text(
        """
        [machine]
        image = "hello.bin"
        [[device]]
        type = "shardio.devices:Uart16550"
        pio = 0x3f8
        pass_fds = [7]
        output = "fd:7"
        [[device]]
        type = "shardio.devices:ExitPort"
        pio = 0xf4
        raw = true
        """
    )

    done = shardio("run", file, environment=environment, before=f"exec 7>{log}")

    assert (done.stdout, done.returncode) == (b"", 42)
    assert HELLO in log.read_bytes()


def test_a_closed_descriptor_is_told_with_the_file(image: Path, environment: dict[str, str]) -> None:
    file = image.with_name("machine.toml")
    file.write_text(
        """
        [machine]
        image = "hello.bin"
        [[device]]
        type = "shardio.devices:Uart16550"
        pio = 0x3f8
        pass_fds = [777]
        """
    )

    done = shardio("run", file, environment=environment)

    assert done.returncode == 2
    assert is_one_error(done.stderr, "[[device]] 1", "descriptor 777", "Bad file descriptor"), done.stderr


def test_device_beside_the_file_is_found(image: Path, environment: dict[str, str]) -> None:
    image.with_name("my_end.py").write_text(
        "from shardio.devices import ExitPort\n\n\nclass MyEnd(ExitPort):\n    pass\n"
    )
    file = image.with_name("machine.toml")
    file.write_text('[machine]\nimage = "hello.bin"\n[[device]]\ntype = "my_end:MyEnd"\npio = 0xf4\n')

    done = shardio("run", file, "--quiet", environment=environment)

    assert (done.returncode, done.stderr) == (85, b"")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_while_the_file_is_read_ends_the_command(
    tmp_path: Path, environment: dict[str, str], number: signal.Signals
) -> None:
    config = tmp_path / "machine.toml"
    os.mkfifo(config)
    with subprocess.Popen(
        [*SHARDIO, "run", str(config)],
        env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        with config.open("wb"):  # once the command has opened it, too
            process.send_signal(number)
            output = process.communicate()

    assert (process.returncode, output) == (128 + number, (b"", b""))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_stops_the_machine(sleeper: Path, environment: dict[str, str], number: signal.Signals) -> None:
    command = [*SHARDIO, "run", "--image", str(sleeper), "--quiet"]
    with subprocess.Popen(
        command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        read_until(process.stdout.fileno(), b"READY")
        process.send_signal(number)
        _, errors = process.communicate()

    assert (process.returncode, errors) == (128 + number, b"")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signal_to_the_whole_group_stops_the_machine_alone(
    sleeper: Path, environment: dict[str, str], number: signal.Signals
) -> None:
    command = [*SHARDIO, "run", "--image", str(sleeper), "--quiet"]
    with subprocess.Popen(
        command, env=environment, start_new_session=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        read_until(process.stdout.fileno(), b"READY")
        os.killpg(process.pid, number)
        _, errors = process.communicate()

    assert (process.returncode, errors) == (128 + number, b"")


@pytest.mark.parametrize(
    ("number", "status"),
    [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGQUIT, -signal.SIGQUIT), (signal.SIGKILL, -9)],
)
def test_signal_while_a_device_is_made_ends_the_start(
    sleeper: Path, environment: dict[str, str], number: signal.Signals, status: int
) -> None:
    begun = sleeper.with_name("begun")
    device = f"tests.e2e.devices:Unfinished,mmio=0xd0000000,size=4,begun={begun}"
    command = [*SHARDIO, "run", "--image", str(sleeper), "--quiet", "--device", device]
    with console(begun) as constructor, subprocess.Popen(
        command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        read_until(constructor, b"!")
        process.send_signal(number)
        output = process.communicate()

    assert (process.returncode, output) == (status, (b"", b""))


def test_nohup_keeps_the_machine(sleeper: Path, environment: dict[str, str]) -> None:
    command = [*SHARDIO, "run", "--image", str(sleeper), "--quiet"]
    with subprocess.Popen(
        ["sh", "-c", 'trap "" HUP; exec "$@"', "sh", *command], env=environment,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        read_until(process.stdout.fileno(), b"READY")
        process.send_signal(signal.SIGHUP)
        process.send_signal(signal.SIGTERM)
        process.communicate()

    assert process.returncode == 128 + signal.SIGTERM


def test_killed_vmm_leaves_nothing(sleeper: Path, environment: dict[str, str]) -> None:
    command = [*SHARDIO, "run", "--image", str(sleeper), "--vcpus", "2", "--shards", "2"]
    with subprocess.Popen(
        command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        read_until(process.stdout.fileno(), b"READY")
        process.kill()
        # Both pipes end only when every process that holds them is gone.
        process.communicate()

    assert process.returncode == -signal.SIGKILL


def test_standard_input_reaches_the_guest_whole(echo: Path, environment: dict[str, str]) -> None:
    text = bytes(range(32, ord("q"))) * 3 + b"\x01x\x01q"

    done = subprocess.run(
        [*SHARDIO, "run", "--image", str(echo), "--quiet"],
        env=environment, input=text, capture_output=True, check=False,
    )  # fmt: skip

    assert (done.stdout, done.returncode) == (text, (ord("q") << 1 | 1) & 0xFF)


def test_escape_leaves_and_gives_the_terminal_back(
    sleeper: Path, environment: dict[str, str], terminal: tuple[int, int]
) -> None:
    user, program = terminal
    before = termios.tcgetattr(program)
    # setsid -c makes the pseudo-terminal the controlling one, as a login does.
    command = ["setsid", "-c", *SHARDIO, "run", "--image", str(sleeper)]
    with subprocess.Popen(command, env=environment, stdin=program, stdout=program, stderr=program) as process:
        read_until(user, b"READY")
        during = termios.tcgetattr(program)
        os.write(user, b"\x01h")
        read_until(user, b"Ctrl-a x")
        os.write(user, b"\x01x")
        table = read_until(user, b"waiting %")
        status = process.wait()

    assert not during[3] & (termios.ICANON | termios.ECHO)
    assert b"vCPU" in table
    assert (status, termios.tcgetattr(program)) == (0, before)


def test_missing_image(tmp_path: Path, environment: dict[str, str]) -> None:
    file = tmp_path / "image.bin"

    done = shardio("run", "--image", file, environment=environment)

    assert done.returncode == 2
    assert is_one_error(done.stderr, str(file), "No such file"), done.stderr


def test_empty_image(tmp_path: Path, environment: dict[str, str]) -> None:
    file = tmp_path / "image.bin"
    file.touch()

    done = shardio("run", "--image", file, environment=environment)

    assert done.returncode == 2
    assert is_one_error(done.stderr, str(file), "empty"), done.stderr


def test_image_larger_than_memory(tmp_path: Path, environment: dict[str, str]) -> None:
    file = tmp_path / "image.bin"
    file.write_bytes(bytes(2 << 20))

    done = shardio("run", "--image", file, "--memory", "1M", environment=environment)

    assert done.returncode == 2
    assert is_one_error(done.stderr, str(file)), done.stderr


def test_device_that_cannot_be_made(image: Path, environment: dict[str, str]) -> None:
    device = "shardio.devices:Uart16550,pio=0x2f8,output=nowhere"

    done = shardio("run", "--image", image, "--device", device, environment=environment)

    assert done.returncode == 2
    assert is_one_error(done.stderr, "nowhere", '"stdout"'), done.stderr


@isolated
def test_memory_beyond_the_limit_on_file_sizes(image: Path, environment: dict[str, str]) -> None:
    done = shardio("run", "--image", image, environment=environment, before="ulimit -f 1")

    assert done.returncode == 2
    assert is_one_error(done.stderr, "memory", "File too large", "-f"), done.stderr


@isolated
def test_kvm_without_permission(image: Path, environment: dict[str, str]) -> None:
    barrier = image.with_name("kvm")
    barrier.write_bytes(b"")
    barrier.chmod(0)
    drop = "setpriv --bounding-set=-dac_override,-dac_read_search"
    forbid = f'mount --bind {barrier} /dev/kvm; set -- {drop} "$@"'

    done = shardio("run", "--cpu", "kvm", "--image", image, environment=environment, before=forbid)

    assert done.returncode == 2
    assert is_one_error(done.stderr, "/dev/kvm", "Permission denied", "group"), done.stderr


def test_too_few_file_descriptors(image: Path, environment: dict[str, str]) -> None:
    done = subprocess.run(
        ["sh", "-c", 'ulimit -n 24; exec "$@"', "sh", *SHARDIO, "run", "--image", str(image), "--vcpus", "4"],
        env=environment, capture_output=True, stdin=subprocess.DEVNULL, check=False,
    )  # fmt: skip

    assert done.returncode == 2
    assert is_one_error(done.stderr, "open files", "ulimit -n"), done.stderr


def test_a_trace_goes_to_standard_error_or_to_a_file(image: Path, tmp_path: Path) -> None:
    words = [*SHARDIO, "run", "--image", str(image), "--quiet", "--trace"]
    text = subprocess.run([*words, "all"], capture_output=True, text=True, check=False, cwd=ROOT)
    file = tmp_path / "trace.json"
    chart = subprocess.run(
        [*words, "com1", "--trace-file", str(file)], capture_output=True, text=True, check=False, cwd=ROOT
    )

    assert (text.returncode, chart.returncode, chart.stderr) == (85, 85, "")
    assert re.search(r"vCPU 0 +write 1 pio 0x3f8 <- 0x48 com1 @\w+ answered wait", text.stderr)
    # It ends the machine, which may come before its answer.
    assert re.search(r"vCPU 0 +write 1 pio 0xf4 <- 0x2a exit @\w+ (answered|aborted) wait", text.stderr)
    assert "com1" in {track.partition(" @")[0] for track in read(file).tracks.values()}


@pytest.mark.parametrize(("options", "complaint"), [
    (["--trace", "com2"], "there is no device 'com2' to trace"),
    (["--trace-file", "x.json"], "--trace-file without --trace"),
    (["--trace", "all", "--trace-file", "/nowhere/x.json"], "no trace in /nowhere/x.json"),
])  # fmt: skip
def test_a_trace_that_cannot_be_is_refused(image: Path, options: list[str], complaint: str) -> None:
    words = [*SHARDIO, "run", "--image", str(image), *options]
    ended = subprocess.run(words, capture_output=True, text=True, check=False, cwd=ROOT)

    assert ended.returncode == 2
    assert complaint in ended.stderr
