"""Runs a guest of our own: all vCPUs come up, each drives devices on every shard, the host checks the result.

The exit status is 0 only if every checksum that the guest read is the one that the host calculates.

examples:
  shardio demo
  shardio demo --vcpus 4 --shards 3 --count 10000
  shardio demo --cpu soft
"""

from __future__ import annotations

import argparse
import sys

from shardio.cli.summary import console, duration, summary
from shardio.demo import Demo, Outcome

EXIT_MISMATCH = 1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument(
        "--vcpus", type=int, default=2, metavar="N", help="how many vCPUs, 1 to 10 (default 2)"
    )
    parser.add_argument(
        "--shards", type=int, default=2, metavar="N", help="how many shards, 1 to 7 (default 2)"
    )
    parser.add_argument(
        "--count", type=int, default=2000, metavar="N", help="writes to each device (default 2000)"
    )
    parser.add_argument(
        "--cpu", default="auto", metavar="KIND",
        help="what runs the vCPUs: kvm, soft or auto, which is KVM where it works (the default)",
    )  # fmt: skip


def execute(arguments: argparse.Namespace) -> int:
    """Runs the demo, prints the tables and the verdict; returns the exit status."""
    demo = Demo(arguments.vcpus, arguments.shards, arguments.count, arguments.cpu)
    sys.stdout.flush()
    outcome = demo.run()
    out = console(sys.stdout)
    out.print()
    out.print(summary(outcome.statistics))
    out.print()
    for line in verdict(demo, outcome):
        out.print(line)
    return 0 if outcome.matches else EXIT_MISMATCH


def verdict(demo: Demo, outcome: Outcome) -> list[str]:
    """What the host says about the guest's result, in lines."""
    if outcome.matches:
        devices = demo.vcpus * demo.shards
        waits = [
            device.wait_p50_ns
            for device in outcome.statistics.devices
            if not device.posted and device.writes > 99
        ]
        typical = f"; a vCPU waited {duration(sorted(waits)[len(waits) // 2])} (median)" if waits else ""
        what = (
            f"{demo.vcpus} vCPUs, {demo.shards} shards: all {devices} checksums over {demo.count} writes each"
        )
        return [f"{what} match the host's{typical}"]
    lines = ["the guest did not end in time"]
    if outcome.ended is not None:
        lines = [f"the guest ended: {outcome.ended.reason} {outcome.ended.detail}".strip()]
    for vcpu, (read, expected) in enumerate(zip(outcome.read, outcome.expected, strict=True)):
        for shard, (one, other) in enumerate(zip(read, expected, strict=True)):
            if one != other:
                lines.append(
                    f"vCPU {vcpu}, shard {shard}: the guest read {one:#018x}, the host expects {other:#018x}"
                )
    return lines
