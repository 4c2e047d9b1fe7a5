"""Relays and brokers that really run, for the tests: each its own process, on a free port, ended by its own id."""

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

import pytest

from benchmarks.wire_device import MqttHub, WireDevice, activation_token
from relay import home as relay_home
from relay.home import Home
from relay.process import tenant_add
from relay.transport.address import BrokerAddress, free_port
from wire.signing import SigningKey

PROJECT = Path(relay_home.__file__).resolve().parent.parent
WAIT_S = 20.0


def environment() -> dict[str, str]:
    """The environment of a child process that finds the project from any folder."""
    path = os.pathsep.join(filter(None, (str(PROJECT), os.environ.get("PYTHONPATH"))))
    return {**os.environ, "PYTHONPATH": path}


def program_path(name: str) -> str:
    """A broker's program; the test is skipped without it, and fails where CI promises it."""
    # nats-server comes with the Python packages, beside the interpreter; Debian's mosquitto lies in /usr/sbin.
    places = (os.environ.get("PATH", os.defpath), str(Path(sys.executable).parent), "/usr/sbin", "/usr/local/sbin")
    found = shutil.which(name, path=os.pathsep.join(places))
    if found is not None:
        return found
    if os.environ.get("CI") == "true":
        pytest.fail(f"{name} is missing, and CI must have it")
    pytest.skip(f"{name} is not installed")


@contextlib.contextmanager
def broker_process(command: Sequence[str], ports: Sequence[int]) -> Iterator[subprocess.Popen[bytes]]:
    """A broker that listens on all of `ports`, ended at the end."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + WAIT_S
        for port in ports:
            while True:
                assert process.poll() is None, f"{command[0]} ended at once"
                with contextlib.suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port)):
                    break
                assert time.monotonic() < deadline, f"{command[0]} does not listen"
                time.sleep(0.02)
        yield process
    finally:
        process.kill()
        process.wait(WAIT_S)


@contextlib.contextmanager
def mosquitto(folder: Path) -> Iterator[BrokerAddress]:
    """A Mosquitto of its own, with its configuration in `folder`."""
    program = program_path("mosquitto")
    port = free_port("127.0.0.1")
    config = folder / "mosquitto.conf"
    config.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\npersistence false\nlog_type none\n")
    with broker_process([program, "-c", str(config)], [port]):
        yield BrokerAddress("127.0.0.1", port)


@contextlib.contextmanager
def nats_server(folder: Path) -> Iterator[tuple[BrokerAddress, BrokerAddress]]:
    """A NATS server of its own, with all that it keeps in `folder`: where it speaks NATS, and where MQTT."""
    program = program_path("nats-server")
    port, mqtt_port = free_port("127.0.0.1"), free_port("127.0.0.1")
    config = folder / "nats.conf"
    config.write_text(
        f'server_name: "test"\nlisten: "127.0.0.1:{port}"\nmqtt {{ listen: "127.0.0.1:{mqtt_port}" }}\n'
        f'jetstream {{ store_dir: "{folder / "jetstream"}" }}\n'
    )
    with broker_process([program, "-c", str(config)], [port, mqtt_port]):
        yield BrokerAddress("127.0.0.1", port, "nats"), BrokerAddress("127.0.0.1", mqtt_port)


class RelayProcess:
    """`python -m relay run` as a child process."""

    def __init__(self, home: Home, limits: str = "", options: Sequence[str] = ()) -> None:
        self.home = home
        self._options = options
        self._limits = limits
        self.process: subprocess.Popen[str] | None = None
        self.ready = ""

    def start(self) -> None:
        """Start it, and wait for its `ready`."""
        command = [sys.executable, "-m", "relay", "run", "--home", str(self.home.path), *self._options]
        if self._limits:
            command = ["sh", "-c", f'{self._limits}; exec "$@"', "sh", *command]
        self.process = subprocess.Popen(
            command, env=environment(), cwd=self.home.path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        self.ready = self.process.stdout.readline()
        if not self.ready.startswith("ready "):
            self.process.kill()
            raise AssertionError(f"the relay did not start: {self.ready}{self.process.communicate()[1]}")

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def kill(self) -> None:
        """kill -9."""
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.communicate(timeout=WAIT_S)
        self.process = None

    def stop(self) -> tuple[int, str, str]:
        """SIGTERM; returns exit status, the rest of stdout, and stderr."""
        assert self.process is not None
        process, self.process = self.process, None
        process.send_signal(signal.SIGTERM)
        out, errors = process.communicate(timeout=WAIT_S)
        return process.returncode, out, errors

    def __enter__(self) -> "RelayProcess":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.communicate(timeout=WAIT_S)


ADMIN = SigningKey(bytes(range(32)))
TENANT = "acme.example"


def make_home(folder: Path, broker: str | None = None, device_broker: str | None = None) -> Home:
    """A relay's home with one tenant."""
    home = relay_home.init(folder, os.urandom, None if broker else "127.0.0.1:0", broker, device_broker)
    tenant_add(folder, TENANT, ADMIN.public)
    return home


def device_of(home: Home, name: str) -> WireDevice:
    """A device of the tenant, not linked yet."""
    return WireDevice(f"{name}@{TENANT}", home.card.relay_id, home.card.signing_key)


@contextlib.asynccontextmanager
async def hub_of(home: Home) -> AsyncIterator[MqttHub]:
    """A connection to the broker on the card."""
    address = BrokerAddress.from_url(home.card.broker)
    hub = MqttHub(address.host, address.port, home.card.relay_id)
    await asyncio.wait_for(hub.start(), WAIT_S)
    try:
        yield hub
    finally:
        await hub.stop()


async def enrolled(hub: MqttHub, device: WireDevice, credit: int = 1_024) -> WireDevice:
    """Link a device, enrol it, subscribe."""
    async with asyncio.timeout(WAIT_S):
        await device.start(await hub.port(device.tag))
        await device.enrol(activation_token(ADMIN, device.account))
        if credit:
            await device.subscribe(credit)
    return device


async def until(condition: "object", what: str, seconds: float = WAIT_S) -> None:
    """Wait until `condition()` holds."""
    assert callable(condition)
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not come"
        await asyncio.sleep(0.01)
