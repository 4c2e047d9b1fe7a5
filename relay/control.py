"""The control socket: how the operator's commands reach a relay that runs, and only they.

`DIR/control.sock` has mode 0600, and each connection's peer is asked for from the kernel (SO_PEERCRED): it must be the
relay's own user, or root. A message is u32(length) and canonical MessagePack, one request at a time, one answer each:

    request  [1] status   [2, domain, admin key] tenant_add   [3, out, memory] disclose   [4] seal   [5] stop
             [6, scope, name] find   [7, scope, name, until, leaf] preserve   [8, [domain, …]] end
             [9, scope, name, after] content
             [11] preserving   [12, leaf, [[scope, name, until, leaf], …]] release
             [13, number, kind, scope, name, until] capture   [14, number] captured   [15, number, reason] end_capture
    answer   [0, kind, text] failed   [1, [[name, count], …]] status   [2] done   [3, pid] copied
             [4, files, rotated] sealed   [5, mailboxes, envelopes, body bytes, [held record, …]] found
             [6, [[seq, mailbox, number, envelope id, expiry, body], …]] content   [11, [leaf, …]] preserving
             [14, records, through ms, more, ended] captured

`disclose` and `seal` are two stages of one order on one connection (relay/disclosure.py): between them the store stands
still and, with a memory image, the orderer reads the relay's memory. If the connection ends, or nothing comes for
`ORDER_S_MAX`, the relay goes on without the order. The same with `capture` and what is asked for after it
(relay/capturing.py).

A request that does not decode is answered with its field and limit, and ends that connection, nothing else.
"""

import asyncio
import os
import socket
import struct
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

from msgspec import Meta

from relay.core.events import CoreCounters
from relay.tasks import end_tasks
from wire.codec import Id, Key, Record, decode, encode
from wire.errors import BlindpostError, FormatError
from wire.limits import ACCOUNT_BYTES_MAX, DOMAIN_BYTES_MAX

MESSAGE_BYTES_MAX = 65_536
ANSWER_BYTES_MAX = 64 * 1024 * 1024
"""What is held about somebody with full mailboxes is long."""
ORDER_S_MAX = 120.0
CONNECTIONS_MAX = 16
"""Each capture holds one as long as it goes on."""
_SOCKET_PATH_BYTES_MAX = 100
_RECEIVED_BYTES = 1_048_576

Path_ = Annotated[str, Meta(min_length=1, max_length=4_096)]
Domain = Annotated[str, Meta(min_length=1, max_length=DOMAIN_BYTES_MAX)]
Text = Annotated[str, Meta(max_length=512)]
Count = Annotated[int, Meta(ge=0)]


class StatusRequest(Record, frozen=True, tag=1):
    """How is the relay?"""


class TenantAddRequest(Record, frozen=True, tag=2):
    """Admit a company."""

    domain: Domain
    admin_key: Key


class DiscloseRequest(Record, frozen=True, tag=3):
    """First stage of an order: copy everything into `out`, and with `memory` allow the peer to read the process."""

    out: Path_
    memory: bool


class SealRequest(Record, frozen=True, tag=4):
    """Second stage: hash, sign, and go on."""


class StopRequest(Record, frozen=True, tag=5):
    """Shut down."""


class FindRequest(Record, frozen=True, tag=6):
    """What is held about a scope: everybody, a tenant, an account or a mailbox (relay/core/docket.py)."""

    scope: Literal["all", "tenant", "account", "mailbox"]
    name: Annotated[str, Meta(max_length=ACCOUNT_BYTES_MAX)]


class PreserveRequest(Record, frozen=True, tag=7):
    """Stop expiry and deletion for the mailboxes of a scope until then; `leaf` is the order's in the public log."""

    scope: Literal["all", "tenant", "account", "mailbox"]
    name: Annotated[str, Meta(max_length=ACCOUNT_BYTES_MAX)]
    until: Count
    leaf: Count


class EndRequest(Record, frozen=True, tag=8):
    """End the service for these companies: nothing new is taken, what waits is delivered."""

    domains: Annotated[tuple[Domain, ...], Meta(min_length=1, max_length=1_000)]


class ContentRequest(Record, frozen=True, tag=9):
    """The undelivered envelopes of a scope, `after` a seq: as many as one answer holds."""

    scope: Literal["all", "tenant", "account", "mailbox"]
    name: Annotated[str, Meta(max_length=ACCOUNT_BYTES_MAX)]
    after: Count


class PreservingRequest(Record, frozen=True, tag=11):
    """For which orders is something preserved now?"""


class Standing(Record, frozen=True):
    """A preservation that holds: whom it is about, until when, and its leaf in the public log."""

    scope: Literal["all", "tenant", "account", "mailbox"]
    name: Annotated[str, Meta(max_length=ACCOUNT_BYTES_MAX)]
    until: Count
    leaf: Count


class ReleaseRequest(Record, frozen=True, tag=12):
    """End what the order of `leaf` preserves; what one of `standing` covers goes on under that one."""

    leaf: Count
    standing: Annotated[tuple[Standing, ...], Meta(max_length=1_000)]


class CaptureRequest(Record, frozen=True, tag=13):
    """Record what passes through the mailboxes of a scope until then, for this connection."""

    number: Count
    kind: Annotated[str, Meta(max_length=32)]
    scope: Literal["all", "tenant", "account", "mailbox"]
    name: Annotated[str, Meta(max_length=ACCOUNT_BYTES_MAX)]
    until: Count


class CapturedRequest(Record, frozen=True, tag=14):
    """What was recorded since the last time?"""

    number: Count


class EndCaptureRequest(Record, frozen=True, tag=15):
    """Record no more for an order; whoever takes it may take what waits."""

    number: Count
    reason: Annotated[str, Meta(min_length=1, max_length=32)]


class Failed(Record, frozen=True, tag=0):
    """The request was not served; `kind` is the error's class, `text` its words."""

    kind: Annotated[str, Meta(max_length=64)]
    text: Text


class Status(Record, frozen=True, tag=1):
    """Figures by name."""

    counts: tuple[tuple[Annotated[str, Meta(max_length=64)], Count], ...]


class Done(Record, frozen=True, tag=2):
    """It is done, and durable."""


class Copied(Record, frozen=True, tag=3):
    """The files are copied, the store stands still; `pid` is the relay's process."""

    pid: Count


class Sealed(Record, frozen=True, tag=4):
    """The disclosure is complete: `files` on the manifest; `rotated`: the relay signs with another key from now on."""

    files: Count
    rotated: bool


class Content(Record, frozen=True, tag=6):
    """Envelopes as the store holds them, in the order of their rows: seq, mailbox, number, id, expiry, body."""

    envelopes: Annotated[tuple[tuple[Count, Id, Count, Id, Count, bytes], ...], Meta(max_length=4_096)]


class Preserving(Record, frozen=True, tag=11):
    """The leaves of the orders for which something is preserved."""

    leaves: tuple[Count, ...]


class Captured(Record, frozen=True, tag=14):
    """Records (wire/capture.py), complete up to a time; `more` wait; why it has `ended`, empty if it goes on."""

    data: bytes
    through_ms: Count
    more: Annotated[int, Meta(ge=0, le=1)]
    ended: Annotated[str, Meta(max_length=32)]


class Found(Record, frozen=True, tag=5):
    """What is held: how many mailboxes and waiting envelopes, and for an account the record (wire/held.py)."""

    mailboxes: Count
    envelopes: Count
    body_bytes: Count
    held: Annotated[tuple[bytes, ...], Meta(max_length=1)]


Request: TypeAlias = (
    StatusRequest
    | TenantAddRequest
    | DiscloseRequest
    | SealRequest
    | StopRequest
    | FindRequest
    | PreserveRequest
    | EndRequest
    | ContentRequest
    | PreservingRequest
    | ReleaseRequest
    | CaptureRequest
    | CapturedRequest
    | EndCaptureRequest
)
Answer: TypeAlias = Failed | Status | Done | Copied | Sealed | Found | Content | Preserving | Captured
Serve: TypeAlias = Callable[["Peer", Request], Awaitable[Answer]]


class ControlError(BlindpostError):
    """The relay did not serve a request; `kind` names the error there.

    Args:
        kind: the class of the error in the relay's process.
        text: its words.
    """

    def __init__(self, kind: str, text: str) -> None:
        self.kind = kind
        super().__init__(text)


class NotRunning(BlindpostError):
    """No relay listens at this home."""


class Peer:
    """One connection: who it is, and what must end when it ends.

    Args:
        pid: the peer's process, from the kernel.
        uid: the peer's user, from the kernel.
    """

    def __init__(self, pid: int, uid: int) -> None:
        self.pid = pid
        self.uid = uid
        self.order: object | None = None
        """The order under way on this connection, relay/disclosure.py's."""


def peer_of(connection: socket.socket) -> Peer:
    """Ask the kernel who is at the other end of a Unix socket."""
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    pid, uid, _gid = struct.unpack("3i", credentials)
    return Peer(pid, uid)


def is_allowed(uid: int, own_uid: int) -> bool:
    """Whether a peer of this user may command a relay of that one."""
    return uid in {own_uid, 0}


@contextmanager
def socket_address(path: Path) -> Iterator[str]:
    """An address for a Unix socket, also where the path is longer than such an address may be (108 bytes)."""
    if len(os.fsencode(path)) <= _SOCKET_PATH_BYTES_MAX:
        yield str(path)
        return
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{directory}/{path.name}"
    finally:
        os.close(directory)


class ControlServer:
    """Listens on the control socket.

    Args:
        path: the socket's path; an old one there is removed (the home's lock is held).
        serve: answers one request of one peer; errors of ours become `Failed`.
        ended: called when a connection ends, whatever the reason.
    """

    def __init__(self, path: Path, serve: Serve, ended: Callable[[Peer], Awaitable[None]]) -> None:
        self._path = path
        self._serve = serve
        self._ended = ended
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Listen, for the relay's own user only."""
        self._path.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        previous = os.umask(0o177)
        try:
            with socket_address(self._path) as address:
                listener.bind(address)
        finally:
            os.umask(previous)
        self._server = await asyncio.start_unix_server(self._connected, sock=listener)

    async def close(self) -> None:
        """Stop listening, end the connections, remove the socket."""
        if self._server is not None:
            self._server.close()
            self._path.unlink(missing_ok=True)
        current = asyncio.current_task()
        await end_tasks([task for task in self._connections if task is not current])

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        connection = writer.get_extra_info("socket")
        peer = peer_of(connection)
        try:
            if len(self._connections) > CONNECTIONS_MAX or not is_allowed(peer.uid, os.getuid()):
                return
            while await self._answer_one(peer, reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError, TimeoutError, asyncio.CancelledError):
            # The peer is gone, or silent for too long, or `close` ends this task: what the peer began ends below.
            return
        finally:
            self._connections.discard(task)
            writer.close()
            await self._ended(peer)

    async def _answer_one(self, peer: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Serve one request; False when the connection must end."""
        async with asyncio.timeout(ORDER_S_MAX):
            length = int.from_bytes(await reader.readexactly(4), "big")
            if not 0 < length <= MESSAGE_BYTES_MAX:
                refusal = Failed("FormatError", f"request: has {length} bytes (limit {MESSAGE_BYTES_MAX})")
                writer.write(_framed(refusal))
                await writer.drain()
                return False
            data = await reader.readexactly(length)
        answer: Answer
        try:
            request: Request = decode(Request, data, "request")
        except FormatError as error:
            writer.write(_framed(Failed("FormatError", str(error)[:500])))
            await writer.drain()
            return False
        try:
            answer = await self._serve(peer, request)
        except (BlindpostError, OSError) as error:
            answer = Failed(type(error).__name__[:64], str(error)[:500])
        async with asyncio.timeout(ORDER_S_MAX):
            writer.write(_framed(answer))
            await writer.drain()
        return True


class Connection:
    """The operator's side of the control socket; blocking. Use as a context manager.

    Args:
        path: the socket's path.
        timeout_s: how long an answer may take.

    Raises:
        NotRunning: nobody listens there.
    """

    def __init__(self, path: Path, timeout_s: float = 2 * ORDER_S_MAX) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(timeout_s)
        try:
            with socket_address(path) as address:
                self._socket.connect(address)
        except (FileNotFoundError, ConnectionRefusedError) as error:
            self._socket.close()
            raise NotRunning("no relay runs at this home") from error

    def __enter__(self) -> "Connection":
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    @property
    def relay(self) -> Peer:
        """The relay's process and user."""
        return peer_of(self._socket)

    def request(self, request: Request) -> Answer:
        """Send a request and wait for its answer.

        Raises:
            ControlError: the relay refused, or ended the connection.
            FormatError: the answer does not decode.
        """
        try:
            self._socket.sendall(_framed(request))
            length = int.from_bytes(self._exactly(4), "big")
            if length > ANSWER_BYTES_MAX:
                raise FormatError("answer", "is too large", ANSWER_BYTES_MAX)
            data = self._exactly(length)
        except (ConnectionError, TimeoutError) as error:
            raise ControlError(type(error).__name__, "the relay ended the connection") from error
        answer: Answer = decode(Answer, data, "answer")
        if isinstance(answer, Failed):
            raise ControlError(answer.kind, answer.text)
        return answer

    def _exactly(self, count: int) -> bytes:
        parts: list[bytes] = []
        while count:
            part = self._socket.recv(min(count, _RECEIVED_BYTES))
            if not part:
                raise ConnectionResetError("the relay ended the connection")
            parts.append(part)
            count -= len(part)
        return b"".join(parts)


def status_of(counters: CoreCounters, more: dict[str, int]) -> Status:
    """The figures of a relay; no identifiers."""
    counts = {
        name: value for name in counters.__dataclass_fields__ if isinstance(value := getattr(counters, name), int)
    }
    counts.update({f"refused_{code}": count for code, count in sorted(counters.refusals.items())})
    counts.update(more)
    return Status(tuple(counts.items()))


def _framed(message: Record) -> bytes:
    data = encode(message)
    return len(data).to_bytes(4, "big") + data
