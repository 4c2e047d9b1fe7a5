"""`python -m benchmarks relay`: durable receipted messages a second through a real relay, and its CPU for each.

The relay is a process of its own, with SQLite on disk; its broker is amqtt inside it, or Mosquitto where that
is installed (a process of its own, whose CPU is not the relay's). This process is the load: senders and
recipients that speak links and frames, random bodies of the size of 1 KiB of ciphertext, at 1, 8 and 64
envelopes a frame; it shares the machine.

Two ways: *online*, the recipients are subscribed while the senders send, and acknowledge; *drain*, they are away, and
subscribe when everything is receipted. A closed loop: each sender keeps a window of submits under way. Every receipt is
verified and every envelope must arrive once, or the run fails (exit status 1).

CPU is user and system time of the relay's process from /proc/PID/stat, from the first submit to the last ack's answer.
"""

import argparse
import asyncio
import contextlib
import json
import os
import platform
import shutil
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from benchmarks.machine import describe
from benchmarks.wire_device import BODY_BYTES, Mail, MqttHub, WireDevice, activation_token
from wire.card import RelayCard
from wire.signing import SigningKey

TENANT = "bench.example"
READY_S_MAX = 20
STEP_S_MAX = 300


@dataclass(frozen=True, slots=True)
class Result:
    """One run."""

    broker: str
    way: str
    envelopes_per_frame: int
    messages: int
    receipted_per_s: float
    delivered_per_s: float
    relay_cpu_us_per_message: float
    seconds: float
    refusals: int
    """Commands that the relay refused and the sender repeated: what backpressure cost this run."""


class LostOrDoubled(Exception):
    """An envelope was lost or doubled: the figures mean nothing."""


def main(argv: list[str]) -> int:
    """Run the benchmark; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks relay", description=__doc__.splitlines()[0])
    parser.add_argument("--messages", type=int, default=0, help="messages a run (default: by frame size)")
    parser.add_argument("--devices", type=int, default=4, help="senders, and as many recipients (default 4)")
    parser.add_argument("--frames", default="1,8,64", help="envelopes a frame (default 1,8,64)")
    parser.add_argument("--brokers", default="amqtt,mosquitto")
    parser.add_argument("--json", action="store_true", help="print the result as JSON instead of a table")
    arguments = parser.parse_args(argv)
    sizes = [int(size) for size in arguments.frames.split(",")]
    results: list[Result] = []
    notes: list[str] = []
    try:
        for broker in arguments.brokers.split(","):
            if broker == "mosquitto" and _mosquitto() is None:
                notes.append("mosquitto is not installed: not measured")
                continue
            for size in sizes:
                for way in ("online", "drain"):
                    messages = arguments.messages or {1: 2_000, 8: 4_000}.get(size, 8_000)
                    results.append(_run(broker, way, size, messages, arguments.devices))
                    if not arguments.json:
                        print(_row(results[-1]), flush=True)
    except LostOrDoubled as error:
        print(f"FAILED: {error}", file=sys.stderr)
        return 1
    report = {"machine": describe(), "versions": _versions(), "command": _command(argv), "body_bytes": BODY_BYTES}
    report |= {"notes": notes, "results": [asdict(result) for result in results]}
    if arguments.json:
        print(json.dumps(report, indent=2))
    else:
        print(f"bodies of {BODY_BYTES} bytes; {report['machine']}; {report['versions']}")
        print(f"{report['command']}", *notes, sep="\n")
    return 0


def _row(result: Result) -> str:
    return (
        f"{result.broker:9} {result.way:6} {result.envelopes_per_frame:3} a frame  {result.messages:6} messages  "
        f"{result.receipted_per_s:8.0f} receipted/s  {result.delivered_per_s:8.0f} delivered/s  "
        f"{result.relay_cpu_us_per_message:6.0f} us of relay CPU each"
        + (f"  {result.refusals} refused and repeated" if result.refusals else "")
    )


# ---- one run


def _run(broker: str, way: str, size: int, messages: int, devices: int) -> Result:
    with tempfile.TemporaryDirectory(prefix="blindpost-bench-") as folder, _relay(Path(folder), broker) as (card, pid):
        load = _load(card, pid, broker, way, size, messages, devices)
        try:
            from uvloop import new_event_loop
        except ImportError:
            return asyncio.run(load)
        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            return runner.run(load)


async def _load(card: RelayCard, pid: int, broker: str, way: str, size: int, messages: int, devices: int) -> Result:
    async with _hub(card) as hub:
        senders = [await _device(hub, card, f"sender{number}") for number in range(devices)]
        recipients = [await _device(hub, card, f"recipient{number}") for number in range(devices)]
        if way == "online":
            for recipient in recipients:
                await recipient.subscribe()
        pairs = list(zip(senders, recipients, strict=True))
        work = [[sender.mail_to(recipient) for _ in range(messages // devices)] for sender, recipient in pairs]
        sent = sum(len(mails) for mails in work)
        cpu_s, start_s = _cpu_s(pid), time.perf_counter()
        async with asyncio.timeout(STEP_S_MAX):
            await asyncio.gather(*(_send(*pair, mails, size) for pair, mails in zip(pairs, work, strict=True)))
            receipted_s = time.perf_counter() - start_s
            drain_s = time.perf_counter()
            if way == "drain":
                for recipient in recipients:
                    await recipient.subscribe()
            while sum(len(recipient.numbers) for recipient in recipients) < sent:
                await asyncio.sleep(0.002)
            delivered_s = time.perf_counter() - (drain_s if way == "drain" else start_s)
            while any(device.unanswered for device in recipients):
                await asyncio.sleep(0.002)
        seconds = time.perf_counter() - start_s
        cpu_s = _cpu_s(pid) - cpu_s
        _check(senders, recipients, work)
        for device in (*senders, *recipients):
            await device.stop()
    cpu_us = cpu_s * 1e6 / sent
    refusals = sum(len(device.refusals) for device in (*senders, *recipients))
    return Result(broker, way, size, sent, sent / receipted_s, sent / delivered_s, cpu_us, seconds, refusals)


async def _send(sender: WireDevice, recipient: WireDevice, mails: list[Mail], size: int) -> None:
    """Send mails, `size` a frame, with a window of frames under way."""
    window = asyncio.Semaphore(max(2, min(64, 512 // size)))

    async def submit(part: list[Mail]) -> None:
        try:
            await sender.submit(recipient, part)
        finally:
            window.release()

    async with asyncio.TaskGroup() as group:
        for start in range(0, len(mails), size):
            await window.acquire()
            group.create_task(submit(mails[start : start + size]))


def _check(senders: list[WireDevice], recipients: list[WireDevice], work: list[list[Mail]]) -> None:
    for sender, recipient, mails in zip(senders, recipients, work, strict=True):
        wanted = {mail.envelope.envelope_id for mail in mails}
        if sender.check_receipts() != len(wanted):
            raise LostOrDoubled(f"{len(sender.receipts)} receipts for {len(wanted)} envelopes")
        if set(recipient.numbers) != wanted or len(recipient.received) != len(wanted):
            raise LostOrDoubled(f"{len(recipient.numbers)} of {len(wanted)} envelopes arrived")
        if recipient.doubled:
            raise LostOrDoubled(f"{len(recipient.doubled)} envelopes were doubled")
        if {receipt.envelope_id: receipt.number for receipt in sender.receipts} != recipient.numbers:
            raise LostOrDoubled("receipts and deliveries differ")


@contextlib.asynccontextmanager
async def _hub(card: RelayCard) -> AsyncIterator[MqttHub]:
    host, _, port = card.broker.removeprefix("mqtt://").rpartition(":")
    hub = MqttHub(host, int(port), card.relay_id)
    await hub.start()
    try:
        yield hub
    finally:
        await hub.stop()


_ADMIN = SigningKey(os.urandom(32))


async def _device(hub: MqttHub, card: RelayCard, name: str) -> WireDevice:
    device = WireDevice(f"{name}@{TENANT}", card.relay_id, card.signing_key)
    await device.start(await hub.port(device.tag))
    await device.enrol(activation_token(_ADMIN, device.account))
    # As a device does; without credit nothing is delivered yet.
    await device.subscribe(credit=0)
    return device


# ---- processes


@contextlib.contextmanager
def _relay(folder: Path, broker: str) -> Iterator[tuple[RelayCard, int]]:
    """A relay's process, and its broker's if that is another; ended at the end."""
    home = str(folder / "home")
    with contextlib.ExitStack() as stack:
        where = ["--broker", stack.enter_context(_broker(folder))] if broker == "mosquitto" else []
        command = [sys.executable, "-m", "relay"]
        subprocess.run([*command, "init", "--home", home, *where], check=True, stdout=subprocess.DEVNULL)
        admit = [*command, "tenant-add", TENANT, _ADMIN.public.hex(), "--home", home]
        subprocess.run(admit, check=True, stdout=subprocess.DEVNULL)
        relay = subprocess.Popen([*command, "run", "--home", home], stdout=subprocess.PIPE, text=True)
        try:
            assert relay.stdout is not None
            if not relay.stdout.readline().startswith("ready "):
                raise RuntimeError("the relay did not start")
            yield RelayCard.read(Path(home) / "relay-card.toml"), relay.pid
        finally:
            relay.terminate()
            relay.communicate(timeout=READY_S_MAX)


@contextlib.contextmanager
def _broker(folder: Path) -> Iterator[str]:
    program = _mosquitto()
    assert program is not None
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    config = folder / "mosquitto.conf"
    config.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\npersistence false\nlog_type none\n")
    process = subprocess.Popen([program, "-c", config], stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + READY_S_MAX
        while time.monotonic() < deadline:
            with contextlib.suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port)):
                break
            time.sleep(0.02)
        yield f"mqtt://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(READY_S_MAX)


def _mosquitto() -> str | None:
    return shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")


def _cpu_s(pid: int) -> float:
    """User and system time of a process so far, in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


# ---- the report


def _versions() -> str:
    found = [f"Python {platform.python_version()}", f"SQLite {sqlite3.sqlite_version}"]
    for package in ("aiomqtt", "amqtt", "msgspec", "PyNaCl", "uvloop"):
        with contextlib.suppress(PackageNotFoundError):
            found.append(f"{package} {version(package)}")
    if (program := _mosquitto()) is not None:
        # `mosquitto -h` ends with status 3, and its first line names the version.
        told = subprocess.run([program, "-h"], capture_output=True, text=True, check=False).stdout
        found.append(" ".join(told.split()[:3]))
    return ", ".join(found)


def _command(argv: list[str]) -> str:
    return " ".join(("python -m benchmarks relay", *argv))
