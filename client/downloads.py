"""Large messages on their way in: manifests whose chunks arrive in any order (protocol.md section 8).

Each chunk is opened under the manifest's file key and kept as a sealed row; what has arrived is durable, so that a
restart, or a day offline, goes on where it was. The message is handed on only when it is whole and its hash right
(client/attachments.py); one chunk at a time is in memory, except for own copies, whose wrapping is looked into once.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from msgspec.structs import replace

from client.attachments import Assembly, Manifest, decode_manifest
from client.content import Content, check_content, unwrap_own_copy
from client.content import Kind as ContentKind
from client.errors import Incomplete
from client.records import KeptRow, Partial
from client.state import State
from client.store import Kind, Step
from keys.chunks import FileKey
from wire.codec import decode, encode
from wire.errors import FormatError
from wire.limits import ID_BYTES

__all__ = ["INCOMPLETE_PER_ACCOUNT_MAX", "Downloads", "Whole", "payload_of"]

INCOMPLETE_PER_ACCOUNT_MAX: Final = 1_000
"""Large messages of one sender whose chunks have not come; each is up to 136 hints in memory, for up to 30 days."""
LARGE_KINDS: Final = frozenset({ContentKind.EMAIL, ContentKind.CHAT})


@dataclass(frozen=True, slots=True)
class Whole:
    """A large message that is whole. Its payload stays in its rows."""

    account: str
    device_key: bytes
    content: Content
    recipients: tuple[str, ...]
    own_copy: bool
    pieces: int
    size: int


class Downloads:
    """The incomplete large messages of a device.

    Args:
        state: the device's state.
    """

    def __init__(self, state: State) -> None:
        self._state = state
        self._rows: dict[bytes, Partial] = {}
        self._assemblies: dict[bytes, Assembly] = {}
        self._by_slot: dict[bytes, tuple[bytes, int]] = {}
        for name, value in state.store.items(Kind.PARTIAL):
            self._know(name, decode(Partial, value, "partial"))

    def _know(self, name: bytes, row: Partial) -> None:
        manifest = decode(Manifest, row.manifest, "manifest")
        self._rows[name] = row
        self._assemblies[name] = Assembly(manifest, row.message_id, row.account, row.have)
        for index, slot in enumerate(_slots(manifest)):
            self._by_slot[slot] = (name, index)

    def begin(self, step: Step, name: bytes, account: str, device_key: bytes, content: Content, expiry: int) -> None:
        """Take a manifest, within a step.

        Raises:
            FormatError: it breaks a rule of section 8, or announces what is no message.
        """
        manifest = decode_manifest(content)
        if manifest.kind not in LARGE_KINDS and manifest.kind is not ContentKind.OWN_COPY:
            raise FormatError("manifest.kind", f"{manifest.kind.name.lower()} does not come in chunks")
        if manifest.kind is ContentKind.OWN_COPY and account != self._state.account:
            raise FormatError("own_copy", f"came from {account}, which is another account")
        if name in self._rows:
            return
        if sum(row.account == account for row in self._rows.values()) >= INCOMPLETE_PER_ACCOUNT_MAX:
            raise FormatError(
                "manifest", f"is one too many of {account} whose chunks have not come", INCOMPLETE_PER_ACCOUNT_MAX
            )
        row = Partial(
            account,
            device_key,
            manifest.kind,
            content.message_id,
            content.sent_ms,
            content.reply_to,
            content.audience,
            content.payload,
            (),
            expiry,
        )
        step.put(Kind.PARTIAL, name, encode(row))
        self._know(name, row)

    def slots(self, name: bytes) -> list[bytes]:
        """The hints of a message's chunks."""
        slots = _slots(self._assemblies[name].manifest)
        return [slot for index, slot in enumerate(slots) if self._by_slot.get(slot) == (name, index)]

    def find(self, body: bytes) -> tuple[bytes, int] | None:
        """The message and number of a chunk by its hint, or None."""
        return self._by_slot.get(body[:ID_BYTES])

    def take(self, step: Step, name: bytes, index: int, envelope_id: bytes, body: bytes) -> bytes:
        """Open and keep a chunk, within a step; returns its ack token.

        Raises:
            DecryptionError: it does not open under the manifest's key; nothing was kept.
            FormatError: it is not a chunk of this message; nothing was kept.
        """
        row, assembly = self._rows[name], self._assemblies[name]
        file_key = FileKey(assembly.manifest.file_key)
        chunk = file_key.open(index, body, envelope_id, row.device_key, self._state.keys.public)
        assembly.check(index, chunk)
        step.put(Kind.PIECE, _piece(name, index), chunk)
        if assembly.note(index):
            row = replace(row, have=(*row.have, index))
            self._rows[name] = row
            step.put(Kind.PARTIAL, name, encode(row))
        return file_key.token(index)

    def is_whole(self, name: bytes) -> bool:
        """Whether every chunk is here."""
        return name in self._assemblies and self._assemblies[name].is_whole

    def finish(self, step: Step, name: bytes) -> Whole:
        """The message, whole and its hash right, within a step.

        Raises:
            FormatError: the hash or the own copy is not what it should be; the message is gone.
        """
        row, assembly = self._rows[name], self._assemblies[name]
        manifest = assembly.manifest

        def read(index: int) -> bytes:
            value = step.changes.get((Kind.PIECE, _piece(name, index)))
            value = value or self._state.store.get(Kind.PIECE, _piece(name, index))
            if value is None:
                raise FormatError("chunk", f"{index} is not in its row")
            return value

        content = Content(bytes(ID_BYTES), manifest.kind, row.message_id, row.sent_ms, row.reply_to, row.audience, b"")
        recipients: tuple[str, ...] = ()
        own_copy = manifest.kind is ContentKind.OWN_COPY
        self._forget(step, name)
        try:
            if own_copy:
                inner, recipients = unwrap_own_copy(replace(content, payload=assembly.payload(read)))
                if inner.kind not in LARGE_KINDS:
                    raise FormatError("own_copy.kind", f"{inner.kind.name.lower()} does not come in chunks")
                content = replace(inner, payload=b"")
            elif manifest.kind is ContentKind.CHAT:
                check_content(replace(content, payload=assembly.payload(read)))
            else:
                assembly.pieces(read)
        except FormatError:
            for index in range(manifest.chunk_count):
                step.delete(Kind.PIECE, _piece(name, index))
            raise
        return Whole(row.account, row.device_key, content, recipients, own_copy, manifest.chunk_count, manifest.size)

    def expired(self, step: Step) -> Iterator[Incomplete]:
        """Give up on messages that can no longer become whole, within a step."""
        for name, row in list(self._rows.items()):
            assembly = self._assemblies[name]
            try:
                assembly.check_expiry(row.expiry, self._state.now_s)
            except Incomplete as incomplete:
                for index in row.have:
                    step.delete(Kind.PIECE, _piece(name, index))
                self._forget(step, name)
                yield incomplete

    def _forget(self, step: Step, name: bytes) -> None:
        step.delete(Kind.PARTIAL, name)
        for slot in self.slots(name):
            del self._by_slot[slot]
        del self._rows[name], self._assemblies[name]


def _slots(manifest: Manifest) -> list[bytes]:
    # Computed, not looked for among those of all messages: a peer may announce ten thousand.
    file_key = FileKey(manifest.file_key)
    return [file_key.hint(index) for index in range(manifest.chunk_count)]


def payload_of(state: State, name: bytes, row: KeptRow) -> bytes:
    """The payload of a kept message, put together from its rows where it is large.

    Raises:
        FormatError: a row is missing or damaged.
    """
    if not row.pieces:
        return row.payload
    pieces = []
    for index in range(row.pieces):
        piece = state.store.get(Kind.PIECE, _piece(name, index))
        if piece is None:
            raise FormatError("chunk", f"{index} is not in its row")
        pieces.append(piece)
    payload = b"".join(pieces)[: row.size]
    if not row.own_copy:
        return payload
    wrapped = Content(
        bytes(ID_BYTES), ContentKind.OWN_COPY, row.message_id, row.sent_ms, row.reply_to, row.audience, payload
    )
    return unwrap_own_copy(wrapped)[0].payload


def _piece(name: bytes, index: int) -> bytes:
    return name + index.to_bytes(4, "big")
