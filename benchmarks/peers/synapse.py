"""Synapse, Matrix's reference server, with SQLite: to-device messages, which it keeps until their device has synced.

A sender makes one PUT /sendToDevice a message, or a batch of them for several devices in one request; it is answered
when the transaction with the messages is committed. A recipient makes a first /sync, which brings what waits for it,
and a second one with the first one's `next_batch`, at which Synapse deletes what was delivered (Matrix client-server
API, sections "Send-to-Device messaging" and "Syncing").

Users are made through Synapse's shared-secret registration, once for all rounds: each round begins with a copy of that
database. Rate limits are off, presence and federation too. Synapse is looked for in an environment of its own, since it
needs other versions of much that we use.
"""

import asyncio
import base64
import contextlib
import hashlib
import hmac
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from urllib.parse import quote

from benchmarks.load import http
from benchmarks.machine import program
from benchmarks.peers.measured import Failure, Window, measured, slots
from benchmarks.peers.work import Account, Outcome, Watch, Work
from benchmarks.processes import Server, ServerError, free_port, started, wait_for

__all__ = ["ENVIRONMENT", "Synapse", "program_of", "version_of"]

ENVIRONMENT = Path(".venv-synapse")
"""Where Synapse is looked for first: an environment of Python beside the one that measures."""

_DOMAIN = "bench.example"
_TYPE = "bench.mail"
_CONNECTIONS_A_SENDER = 16
_REGISTERING = 16
_LOG = """\
version: 1
formatters: {plain: {format: "%(levelname)s %(message)s"}}
handlers: {console: {class: logging.StreamHandler, formatter: plain}}
root: {level: ERROR, handlers: [console]}
disable_existing_loggers: false
"""
_NO_LIMIT = "{per_second: 1000000, burst_count: 1000000}"
_CONFIG = """\
server_name: {domain}
pid_file: {folder}/synapse.pid
listeners:
  - {{port: {port}, type: http, bind_addresses: ["127.0.0.1"], resources: [{{names: [client]}}]}}
database: {{name: sqlite3, args: {{database: {folder}/synapse.sqlite}}}}
log_config: {folder}/log.yaml
media_store_path: {folder}/media
signing_key_path: {folder}/signing.key
registration_shared_secret: {secret}
macaroon_secret_key: {secret}
form_secret: {secret}
bcrypt_rounds: 4
report_stats: false
trusted_key_servers: []
federation_domain_whitelist: []
presence: {{enabled: false}}
rc_message: {limit}
rc_registration: {limit}
rc_login: {{address: {limit}, account: {limit}, failed_attempts: {limit}}}
rc_presence: {{per_user: {limit}}}
"""
_FILTER = quote(
    '{"presence":{"types":[]},"account_data":{"types":[]},"room":{"rooms":[],"account_data":{"types":[]}}}', safe=""
)

Users = dict[str, tuple[str, str]]
"""By short name: access token and device."""


def program_of(environment: Path | None = None) -> Path | None:
    """`synapse_homeserver` of an environment, or of `.venv-synapse`, or on the path."""
    for folder in (ENVIRONMENT,) if environment is None else (environment,):
        if (path := folder / "bin" / "synapse_homeserver").exists():
            return path.absolute()
    if environment is not None:
        return None
    found = program("synapse_homeserver")
    return Path(found) if found is not None else None


def version_of(path: Path) -> str:
    """Synapse's version, by the name of its distribution's folder."""
    packages = path.resolve().parent.parent / "lib"
    found = sorted(packages.glob("python3*/site-packages/matrix_synapse-*.dist-info"))
    return found[-1].name.removeprefix("matrix_synapse-").removesuffix(".dist-info") if found else "unknown"


class Synapse:
    """Meets `Peer`.

    Args:
        batch: messages a request at most; each is for another device.
        environment: where it is installed; looked for when None.
    """

    kind = 1
    synced = "yes"

    def __init__(self, batch: int, environment: Path | None = None) -> None:
        self._batch = batch
        self._environment = environment
        self.name = "Synapse (to-device), SQLite" + (f", up to {batch} a request" if batch > 1 else "")

    def missing(self) -> str | None:
        """See `Peer.missing`."""
        where = ENVIRONMENT if self._environment is None else self._environment
        if program_of(self._environment) is None:
            return (
                f"Synapse is not installed (python -m venv {where.name}; {where.name}/bin/pip install matrix-synapse)"
            )
        return None

    def run(self, folder: Path, work: Work, watch: Watch) -> Outcome:
        """See `Peer.run`."""
        path = program_of(self._environment)
        if path is None:
            raise ServerError("Synapse is not installed")
        made, users = _with_users(path, work)
        shutil.copytree(made, folder / "synapse")
        with _synapse(path, folder / "synapse", watch.prefix) as (server, port):
            return measured(_Session(port, users, self._batch), [server.pid], work, watch)


_made: dict[tuple[Path, int, int], tuple["tempfile.TemporaryDirectory[str]", Users]] = {}


def _with_users(path: Path, work: Work) -> tuple[Path, Users]:
    """A home in which the work's users are registered; made once for each process, and gone with it."""
    key = path, work.senders, work.recipients
    if key not in _made:
        home = tempfile.TemporaryDirectory(prefix="blindpost-bench-")
        secret = secrets.token_hex(16)
        _write_home(Path(home.name), secret)
        with _synapse(path, Path(home.name), ()) as (_, port):
            users = asyncio.run(_register(port, secret, work))
        _made[key] = home, users
    home, users = _made[key]
    return Path(home.name), users


def _write_home(folder: Path, secret: str) -> None:
    (folder / "log.yaml").write_text(_LOG, encoding="ascii")
    (folder / "secret").write_text(secret, encoding="ascii")
    key = base64.b64encode(secrets.token_bytes(32)).decode().rstrip("=")
    (folder / "signing.key").write_text(f"ed25519 bench {key}\n", encoding="ascii")


@contextlib.contextmanager
def _synapse(path: Path, folder: Path, prefix: Sequence[str]) -> Iterator[tuple[Server, int]]:
    port = free_port()
    secret = (folder / "secret").read_text(encoding="ascii")
    config = folder / "homeserver.yaml"
    config.write_text(
        _CONFIG.format(domain=_DOMAIN, folder=folder, port=port, secret=secret, limit=_NO_LIMIT), encoding="utf-8"
    )
    with started([*prefix, path, "--config-path", config], folder / "synapse.out", folder=folder) as server:
        wait_for(server, port)
        yield server, port


async def _register(port: int, secret: str, work: Work) -> Users:
    """All users of the work, each with a device that has a token."""
    names = iter(_names(work))
    users: Users = {}

    async def some() -> None:
        connection = await http.connect(port)
        for name in names:
            nonce = (await connection.ask("GET", "/_synapse/admin/v1/register"))["nonce"]
            password = secrets.token_hex(16)
            signed = "\0".join((nonce, name, password, "notadmin")).encode()
            mac = hmac.new(secret.encode(), signed, hashlib.sha1).hexdigest()
            content = {"nonce": nonce, "username": name, "password": password, "admin": False, "mac": mac}
            made = await connection.ask("POST", "/_synapse/admin/v1/register", content)
            users[name] = made["access_token"], made["device_id"]
        connection.close()

    await asyncio.gather(*(some() for _ in range(_REGISTERING)))
    return users


def _names(work: Work) -> list[str]:
    return [f"s{number}" for number in range(work.senders)] + [f"r{number}" for number in range(work.recipients)]


class _Session:
    def __init__(self, port: int, users: Users, batch: int) -> None:
        self._port = port
        self._users = users
        self._batch = batch
        self._senders: list[list[http.HttpConnection]] = []

    async def prepare(self, account: Account, failure: Failure) -> None:
        """Connect the senders, each several times: a connection carries one request at a time."""
        count = min(_CONNECTIONS_A_SENDER, max(1, account.work.window // self._batch))
        for _ in range(account.work.senders):
            self._senders.append([await http.connect(self._port) for _ in range(count)])

    async def accept(self, account: Account, failure: Failure, tell: Callable[[int], None]) -> None:
        """Send, each request when the window has room for its messages."""
        finished = 0

        async def serve(sender: int, requests: Iterator[Sequence[int]], window: Window, connection: int) -> None:
            nonlocal finished
            http_connection, token = self._senders[sender][connection], self._users[f"s{sender}"][0]
            for places in requests:
                for _ in places:
                    await window.take()
                path = f"/_matrix/client/v3/sendToDevice/{_TYPE}/{places[0]}"
                await http_connection.ask("PUT", path, {"messages": self._messages(account, places)}, token)
                window.give(len(places))
                finished += len(places)
            tell(finished)

        tasks = []
        for sender, connections in enumerate(self._senders):
            requests = iter(_requests(account, sender, min(self._batch, account.work.window)))
            window = Window(account.work.window)
            tasks += [serve(sender, requests, window, connection) for connection in range(len(connections))]
        await asyncio.gather(*tasks)

    def _messages(self, account: Account, places: Sequence[int]) -> dict[str, dict[str, dict[str, str]]]:
        messages = {}
        for place in places:
            name = f"r{account.recipient_of[place]}"
            content = {"body": base64.b64encode(account.payloads[place]).decode()}
            messages[f"@{name}:{_DOMAIN}"] = {self._users[name][1]: content}
        return messages

    async def drain(self, account: Account, failure: Failure) -> None:
        """Every recipient connects, syncs, and syncs again, which tells Synapse that it has what came."""
        gate = slots(account.work, 64)

        async def come(recipient: int) -> None:
            if not account.wanted[recipient]:
                return
            token, since, got = self._users[f"r{recipient}"][0], "", 0
            async with gate:
                connection = await http.connect(self._port)
                while True:
                    path = f"/_matrix/client/v3/sync?timeout=0&set_presence=offline&filter={_FILTER}{since}"
                    answer = await connection.ask("GET", path, token=token)
                    arrived = answer.get("to_device", {}).get("events", ())
                    for event in arrived:
                        account.take(recipient, base64.b64decode(event["content"]["body"]))
                    got += len(arrived)
                    if since and not arrived and got >= account.wanted[recipient]:
                        break
                    since = f"&since={quote(answer['next_batch'])}"
                connection.close()

        await asyncio.gather(*(come(recipient) for recipient in range(account.work.recipients)))

    async def close(self) -> None:
        """Disconnect."""
        for connection in (one for connections in self._senders for one in connections):
            connection.close()


def _requests(account: Account, sender: int, batch: int) -> list[list[int]]:
    """The sender's messages by request: a device is named once in each."""
    found: list[list[int]] = []
    named: set[int] = set()
    for place in account.of_sender(sender):
        recipient = account.recipient_of[place]
        if not found or len(found[-1]) >= batch or recipient in named:
            found.append([])
            named.clear()
        found[-1].append(place)
        named.add(recipient)
    return found
