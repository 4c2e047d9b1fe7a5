"""The relay at work on its files, and what a device keeps: what is erased in them, and when.

The relay is the real one with a real store (sim/world.py); people send, withdraw and acknowledge through real devices,
and the relay's clock is put past an expiry. A twin replaces one thing: `secure_delete` off, or a write-ahead log that
is never emptied.
"""

import asyncio
import contextlib
import hashlib
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import client.home
import relay.process
from client.content import Kind as ContentKind
from client.device import Device
from client.store import Kind
from client.store import Store as DeviceStore
from relay.core.events import Batch, EnvelopeRow, UsedTokenRow
from relay.store.protocol import CHECKPOINT_COMMITS
from relay.store.sqlite import SqliteStore
from sim.experiments.erased.process import BODY, MOMENTS, RELAY_ID, STORE, device_store
from sim.experiments.erased.raw import is_left_in, left_in
from sim.experiments.erased.waiting import WAIT_S, Lingers, until
from sim.world import ABSENT, LoopbackDevices, World, replaced, stored_envelopes

__all__ = [
    "WAYS",
    "KeptLog",
    "KeptLogOfDevice",
    "NotSecure",
    "after_kill",
    "commits_until_erased",
    "device_steps_until_erased",
    "erased_by",
    "left_by_idle_device",
]

WAYS: Final = ("acknowledged", "withdrawn", "expired")
BOUND_S: Final = 1.0
"""The stated bound; also how long is waited after the answer before files are searched."""
_DAYS_31_MS: Final = 31 * 86_400_000
_PASSPHRASE: Final = b"a passphrase of the simulation"
_SENDER: Final = "ana@acme.example"
_FAR_S: Final = 4_102_444_800
_STEPS_MAX: Final = 200
_GONE: Final = "the envelope to leave the store"


class NotSecure(SqliteStore):
    """The twin: what is deleted is not overwritten."""

    def _connect(self) -> sqlite3.Connection:
        connection = super()._connect()
        connection.execute("PRAGMA secure_delete = OFF")
        return connection


class KeptLog(SqliteStore):
    """The twin: the write-ahead log is never emptied."""

    def checkpoint(self) -> int:
        """Do nothing, and say so."""
        return 0


class KeptLogOfDevice(DeviceStore):
    """The twin of a device's store: while it is idle its log is left as it is."""

    def empty_log(self) -> bool:
        """Do nothing, and say that it is done."""
        return True


def erased_by(folder: Path, store: type[SqliteStore] = SqliteStore) -> dict[str, dict[str, int]]:
    """For each way of erasing, the files of the relay's home that still hold windows of the envelope.

    Args:
        folder: where the world is made; it must be empty.
        store: the relay's store, or a twin.

    Raises:
        AssertionError: an envelope was not found in the files before it was erased, so that nothing is shown.
    """
    with replaced(relay.process, "SqliteStore", store):
        return asyncio.run(_erased_by(folder))


async def _erased_by(folder: Path) -> dict[str, dict[str, int]]:
    ahead_ms = 0
    real_ms = relay.process.now_ms
    with replaced(relay.process, "now_ms", lambda: real_ms() + ahead_ms):
        async with World.start(folder) as world:
            home = world.home.path
            await world.switch_off(ABSENT)
            found = {}
            body, message_id = await _sent(world)
            await world.devices[_SENDER].withdraw(message_id, WAIT_S)
            found["withdrawn"] = await _searched(home, body)
            body, _ = await _sent(world)
            await _received(world)
            found["acknowledged"] = await _searched(home, body)
            body, _ = await _sent(world)
            ahead_ms = _DAYS_31_MS
            # Any packet shows the relay its clock; without one it would wait for the timer that was set before.
            await world.devices[_SENDER].look_up(ABSENT, WAIT_S)
            await until(lambda: not stored_envelopes(world.home.store_path), _GONE)
            found["expired"] = await _searched(home, body)
    return found


async def _sent(world: World) -> tuple[bytes, bytes]:
    """Send to the one who is absent; return the body as it lies in the store, which the files must show."""
    before = {envelope.envelope_id for envelope in stored_envelopes(world.home.store_path)}
    device = world.devices[_SENDER]
    content = device.compose(ContentKind.CHAT, b"a text that is erased" * 100, (ABSENT,))
    await device.send(content, (ABSENT,), wait_s=WAIT_S)
    (body,) = (it.body for it in stored_envelopes(world.home.store_path) if it.envelope_id not in before)
    assert left_in(world.home.path, [body]), "the search must find what is there"
    return body, content.message_id


async def _received(world: World) -> None:
    home = world.folder / ABSENT.partition("@")[0]
    async with Device.open(home, _PASSPHRASE, transport=LoopbackDevices(world.network)) as device:
        await device.receive(WAIT_S)
        await device.idle(WAIT_S)
    await until(lambda: not stored_envelopes(world.home.store_path), _GONE)


async def _searched(home: Path, body: bytes) -> dict[str, int]:
    await asyncio.sleep(BOUND_S)
    return left_in(home, [body])


# ------------------------------------------------------------------------------------------------------ by the count


def commits_until_erased(folder: Path) -> int:
    """How many commits, the erasing one included, pass until no window is left; nobody calls `checkpoint` meanwhile.

    Raises:
        Lingers: it is still there after four times the bound.
    """
    store = SqliteStore(folder / STORE, RELAY_ID)
    with contextlib.closing(store):
        store.commit(Batch(envelopes=[EnvelopeRow(1, bytes(16), 1, bytes(16), _FAR_S, 1, 0, BODY)]))
        store.checkpoint()
        for commits in range(1, 4 * CHECKPOINT_COMMITS):
            if commits == 1:
                store.commit(Batch(envelopes_erased=[1]))
            else:
                store.commit(Batch(used_tokens=[UsedTokenRow(commits, commits.to_bytes(16, "big"), _FAR_S)]))
            if not is_left_in(folder, BODY):
                return commits
    raise Lingers("an erased envelope", f"{4 * CHECKPOINT_COMMITS} commits")


def device_steps_until_erased(folder: Path) -> int:
    """The same of a device's sealed rows: how many steps until no window of one is left.

    Raises:
        Lingers: it is still there after 200.
    """
    store = device_store(folder)
    try:
        with store.step() as step:
            step.put(Kind.BODY_PIN, b"a row", BODY)
        (sealed,) = _sealed_rows(store, len(BODY))
        assert left_in(folder, [sealed])
        for steps in range(1, _STEPS_MAX):
            with store.step() as step:
                if steps == 1:
                    step.delete(Kind.BODY_PIN, b"a row")
                else:
                    step.put(Kind.BODY_PIN, b"another", hashlib.sha256(bytes(steps)).digest())
            if not is_left_in(folder, sealed):
                return steps
    finally:
        store.close()
    raise Lingers("an erased row of a device", f"{_STEPS_MAX} steps")


def left_by_idle_device(folder: Path, store: type[DeviceStore] = DeviceStore) -> dict[str, int]:
    """A device erases a message and then does nothing: the files of its home that still hold windows of the row.

    Args:
        folder: where the world is made; it must be empty.
        store: the device's store, or a twin.

    Raises:
        AssertionError: the row was not found in the files before, so that nothing is shown.
    """
    with replaced(client.home, "Store", store):
        return asyncio.run(_left_by_idle_device(folder))


async def _left_by_idle_device(folder: Path) -> dict[str, int]:
    async with World.start(folder) as world:
        device, home = world.devices[ABSENT], folder / ABSENT.partition("@")[0]
        await world.say(_SENDER, (ABSENT,), "a text that is erased" * 100)
        messages = await device.receive(WAIT_S)
        await device.idle(WAIT_S)
        (sealed,) = _kept_rows(device.state.store)
        assert left_in(home, [sealed]), "the search must find what is there"
        device.erase(messages)
        assert not _kept_rows(device.state.store)
        await asyncio.sleep(BOUND_S)
        return left_in(home, [sealed])


def _kept_rows(store: object) -> list[bytes]:
    connection: sqlite3.Connection = vars(store)["_connection"]
    return [row for (row,) in connection.execute("SELECT sealed FROM rows WHERE kind = ?", (int(Kind.KEPT),))]


def _sealed_rows(store: object, size: int) -> list[bytes]:
    connection: sqlite3.Connection = vars(store)["_connection"]
    return [row for (row,) in connection.execute("SELECT sealed FROM rows WHERE length(sealed) > ?", (size,))]


# ------------------------------------------------------------------------------------------------------ after kill -9


@contextlib.contextmanager
def _opened(what: str, folder: Path) -> Iterator[None]:
    if what == "relay":
        with contextlib.closing(SqliteStore(folder / STORE, RELAY_ID)):
            yield
    else:
        store = device_store(folder)
        try:
            yield
        finally:
            store.close()


def after_kill(what: str, moment: str, folder: Path) -> tuple[int, int]:
    """Kill a process that erases, and open its store again.

    Args:
        what: "relay" or "device".
        moment: one of `MOMENTS`.
        folder: empty.

    Returns:
        Windows found right after the kill, and once the store is open again.
    """
    command = [sys.executable, "-m", "sim.experiments.erased.process", what, moment, str(folder)]
    done = subprocess.run(command, capture_output=True, check=False, cwd=Path(relay.__file__).resolve().parents[1])
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()[-500:]
    assert moment in MOMENTS
    content = BODY if what == "relay" else bytes.fromhex(done.stdout.decode().strip())
    killed = sum(left_in(folder, [content]).values())
    with _opened(what, folder):
        return killed, sum(left_in(folder, [content]).values())
