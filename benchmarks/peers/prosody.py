"""Prosody: offline messages, acknowledged by stream management (XEP-0198), in SQLite or in its own files."""

import asyncio
import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from benchmarks.load import xmpp
from benchmarks.machine import program
from benchmarks.peers.measured import Failure, Window, measured, slots
from benchmarks.peers.work import Account, Outcome, Watch, Work
from benchmarks.processes import Server, ServerError, free_port, started, wait_for

__all__ = ["Prosody"]

_DOMAIN = "bench.example"
_PASSWORD = "loopback"
_ACK_EVERY = 16
_LUA = Path("/usr/lib")

_CONFIG = """\
run_as_root = true
pidfile = "{folder}/prosody.pid"
data_path = "{folder}/data"
log = {{ error = "{folder}/prosody.err" }}
interfaces = {{ "127.0.0.1" }}
c2s_ports = {{ {port} }}
s2s_ports = {{ }}
modules_enabled = {{ "saslauth", "smacks", "offline", "presence", "message", "iq" }}
modules_disabled = {{ "s2s", "tls" }}
c2s_require_encryption = false
allow_unencrypted_plain_auth = true
authentication = "internal_plain"
default_storage = "{storage}"
storage = {{ accounts = "internal" }}
sql = {{ driver = "SQLite3", database = "prosody.sqlite" }}
VirtualHost "{domain}"
"""


class Prosody:
    """Meets `Peer`.

    Args:
        sqlite: whether messages are kept in SQLite, instead of a file a recipient.
    """

    def __init__(self, sqlite: bool) -> None:
        self._storage = "sql" if sqlite else "internal"
        self.name = f"Prosody, {'SQLite' if sqlite else 'internal storage'}"
        self.synced = "yes" if sqlite else "no: page cache"
        self.kind = 1 if sqlite else 2

    def missing(self) -> str | None:
        """See `Peer.missing`."""
        if program("prosody") is None:
            return "prosody is not installed (apt-get install prosody lua-dbi-sqlite3)"
        if self._storage == "sql" and not any(_LUA.glob("*/lua/*/dbd/sqlite3.so")):
            return "Lua's binding of SQLite is not installed (apt-get install lua-dbi-sqlite3)"
        return None

    def run(self, folder: Path, work: Work, watch: Watch) -> Outcome:
        """See `Peer.run`."""
        with _prosody(folder, self._storage, work, watch.prefix) as (server, port):
            return measured(_Session(port), [server.pid], work, watch)


@contextlib.contextmanager
def _prosody(folder: Path, storage: str, work: Work, prefix: Sequence[str]) -> Iterator[tuple[Server, int]]:
    path = program("prosody")
    if path is None:
        raise ServerError("prosody is not installed")
    port = free_port()
    accounts = folder / "data" / _DOMAIN.replace(".", "%2e") / "accounts"
    accounts.mkdir(parents=True)
    users = [f"s{number}" for number in range(work.senders)] + [f"r{number}" for number in range(work.recipients)]
    for user in users:
        (accounts / f"{user}.dat").write_text(f'return {{ ["password"] = "{_PASSWORD}"; }};\n', encoding="ascii")
    config = folder / "prosody.cfg.lua"
    config.write_text(_CONFIG.format(folder=folder, port=port, storage=storage, domain=_DOMAIN), encoding="ascii")
    with started([*prefix, path, "-F", "--config", config], folder / "prosody.out") as server:
        wait_for(server, port)
        yield server, port


class _Session:
    def __init__(self, port: int) -> None:
        self._port = port
        self._senders: list[xmpp.XmppConnection] = []
        self._windows: list[Window] = []

    async def prepare(self, account: Account, failure: Failure) -> None:
        """Log the senders in, with stream management."""
        for sender in range(account.work.senders):
            window = Window(account.work.window)
            stream = await xmpp.connect(self._port, _DOMAIN, f"s{sender}", _PASSWORD, failure.lost)
            await stream.expect("<enable xmlns='urn:xmpp:sm:3'/>", b"<enabled")
            stream.on_handled = window.give
            self._senders.append(stream)
            self._windows.append(window)

    async def accept(self, account: Account, failure: Failure, tell: Callable[[int], None]) -> None:
        """Send, and ask for an acknowledgement every few messages."""
        every = min(_ACK_EVERY, account.work.window)

        async def send(sender: int) -> None:
            stream, window = self._senders[sender], self._windows[sender]
            for number, place in enumerate(account.of_sender(sender), 1):
                await window.take()
                stream.send(f"r{account.recipient_of[place]}@{_DOMAIN}", account.payloads[place])
                if number % every == 0:
                    stream.request_ack()
            stream.request_ack()
            await window.settled()
            tell(account.work.messages * (sender + 1) // account.work.senders)

        await asyncio.gather(*(send(sender) for sender in range(account.work.senders)))

    async def drain(self, account: Account, failure: Failure) -> None:
        """Every recipient logs in and says that it is there."""
        gate = slots(account.work, 64)

        async def come(recipient: int) -> None:
            wanted = account.wanted[recipient]
            if not wanted:
                return
            everything = asyncio.Event()
            got = 0

            def arrived(body: bytes) -> None:
                nonlocal got
                try:
                    account.take(recipient, body)
                except Exception as error:
                    failure.tell(error)
                got += 1
                if got == wanted:
                    everything.set()

            async with gate:
                stream = await xmpp.connect(self._port, _DOMAIN, f"r{recipient}", _PASSWORD, failure.lost)
                stream.on_body = arrived
                stream.write("<presence/>")
                await everything.wait()
                stream.close()

        await asyncio.gather(*(come(recipient) for recipient in range(account.work.recipients)))

    async def close(self) -> None:
        """Leave."""
        for stream in self._senders:
            stream.close()
