"""What a broker keeps on its disk of the frames that pass through it.

A real broker that may persist, a real relay process, real devices, one of them away while mail comes for it. A listener
writes down every packet; then the broker is ended, which makes it save what it has, and its directory is searched for
all of them. A topic is no packet: the NATS server writes down which topic each connected session listens on, and that
is not counted here. The twin is a session that the broker must remember, subscribed at QoS 1: there the broker keeps a
copy for whoever is away.
"""

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import aiomqtt

import relay
from client.content import Kind as ContentKind
from client.device import Device
from keys.identity import TenantAdminKey
from keys.vault import CHEAP_FOR_TESTS
from relay import home as relay_home
from relay.process import tenant_add
from relay.transport.address import free_port
from sim.experiments.erased.raw import left_in
from sim.experiments.erased.waiting import WAIT_S, within

__all__ = ["BROKERS", "Kept", "is_there", "kept_by"]

BROKERS: Final = ("mosquitto", "nats-server")
_PASSPHRASE: Final = b"a passphrase of the simulation"
_FAR_S: Final = 4_102_444_800
_DOMAIN: Final = "acme.example"
_ROOT: Final = Path(relay.__file__).resolve().parent.parent


@dataclass(frozen=True)
class Kept:
    """What was found in a broker's directory.

    Attributes:
        packets: how many packets of relay and devices passed through it.
        left: windows of them, by file.
        twin: windows of what the remembered session was sent at QoS 1, by file.
    """

    packets: int
    left: dict[str, int]
    twin: dict[str, int]


def _program(name: str) -> str | None:
    places = (os.environ.get("PATH", os.defpath), str(Path(sys.executable).parent), "/usr/sbin", "/usr/local/sbin")
    return shutil.which(name, path=os.pathsep.join(places))


def is_there(name: str) -> bool:
    """Whether a broker's program is installed."""
    return _program(name) is not None


def kept_by(name: str, folder: Path) -> Kept:
    """Run a broker that persists, with mail through it, and search its directory.

    Args:
        name: one of `BROKERS`, installed.
        folder: empty; broker, relay and devices lie in it.
    """
    return asyncio.run(_kept_by(name, folder))


async def _kept_by(name: str, folder: Path) -> Kept:
    disk = folder / "broker"
    disk.mkdir()
    port, relay_port = free_port("127.0.0.1"), free_port("127.0.0.1")
    secret = os.urandom(4_096)
    with _broker(name, disk, port, relay_port):
        await _listening(port)
        async with _listener(port) as packets:
            await _remembered(port, secret)
            url = f"mqtt://127.0.0.1:{port}"
            with _relay(folder / "relay", url if name == "mosquitto" else f"nats://127.0.0.1:{relay_port}", url):
                await _correspond(folder)
            seen = list(packets)
    return Kept(len(seen), left_in(disk, seen), left_in(disk, [secret]))


@contextlib.contextmanager
def _broker(name: str, disk: Path, port: int, relay_port: int) -> Iterator[None]:
    program = _program(name)
    assert program is not None
    config = disk.parent / "broker.conf"
    if name == "mosquitto":
        config.write_text(
            f"listener {port} 127.0.0.1\nallow_anonymous true\npersistence true\n"
            f"persistence_location {disk}/\nlog_type none\nuser {_user()}\n",
            encoding="utf-8",
        )
    else:
        config.write_text(
            f'server_name: "experiment"\nlisten: "127.0.0.1:{relay_port}"\nmqtt {{ listen: "127.0.0.1:{port}" }}\n'
            f'max_payload: 1048576\njetstream {{ store_dir: "{disk}" }}\n',
            encoding="utf-8",
        )
    process = subprocess.Popen([program, "-c", str(config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        # Mosquitto saves what it has when it is ended so; NATS writes as it goes.
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(WAIT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(WAIT_S)


def _user() -> str:
    import pwd  # noqa: PLC0415

    return pwd.getpwuid(os.getuid()).pw_name


async def _listening(port: int) -> None:
    async with within(f"a broker at port {port}"):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except ConnectionRefusedError:
                await asyncio.sleep(0.05)
            else:
                writer.close()
                return


@contextlib.asynccontextmanager
async def _listener(port: int) -> AsyncIterator[list[bytes]]:
    """Every packet on the relay's topics."""
    packets: list[bytes] = []

    async def listen(client: aiomqtt.Client) -> None:
        async for message in client.messages:
            assert isinstance(message.payload, bytes)
            packets.append(message.payload)

    async with aiomqtt.Client("127.0.0.1", port, identifier="listener", clean_session=True) as client:
        await client.subscribe("bp/#", qos=0)
        task = asyncio.create_task(listen(client))
        try:
            yield packets
            # What was sent last is still on its way.
            await asyncio.sleep(0.2)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def _remembered(port: int, secret: bytes) -> None:
    """The twin: a session that is to be remembered, at QoS 1, whose device goes away; then something is sent to it."""
    topic = "twin/down"
    async with aiomqtt.Client("127.0.0.1", port, identifier="twin", clean_session=False) as client:
        await client.subscribe(topic, qos=1)
    async with aiomqtt.Client("127.0.0.1", port, identifier="sender", clean_session=True) as client:
        await client.publish(topic, secret, qos=1)


@contextlib.contextmanager
def _relay(home: Path, broker: str, device_broker: str) -> Iterator[None]:
    """`python -m relay run` on a home with one company."""
    relay_home.init(home, os.urandom, broker=broker, device_broker=device_broker)
    tenant_add(home, _DOMAIN, _ADMIN.public)
    command = [sys.executable, "-m", "relay", "run", "--home", str(home)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=_ROOT) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline().startswith(b"ready")
            yield
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(WAIT_S)


_ADMIN: Final = TenantAdminKey.generate()


async def _correspond(folder: Path) -> None:
    """One writes to another who is away, and comes back to read it."""
    card = relay_home.Home.open(folder / "relay").card
    accounts = [f"{name}@{_DOMAIN}" for name in ("ana", "omar")]
    for account in accounts:
        token = _ADMIN.activate(account, _FAR_S)
        home = folder / account
        async with Device.new(home, card, token, _PASSPHRASE, cost=CHEAP_FOR_TESTS) as device:
            await device.enrolled(WAIT_S)
    ana, omar = accounts
    async with Device.open(folder / ana, _PASSPHRASE) as device:
        await device.send(device.compose(ContentKind.CHAT, b"while you are away" * 50, (omar,)), (omar,), wait_s=WAIT_S)
    async with Device.open(folder / omar, _PASSPHRASE) as device:
        received = await device.receive(WAIT_S)
        assert received
        await device.idle(WAIT_S)
