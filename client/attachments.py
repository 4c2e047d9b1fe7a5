"""Large messages: how a payload is cut into chunks, and how it is put together again (protocol.md section 8).

    payload ‖ 0x80 ‖ zeros  =  chunk 0 ‖ chunk 1 ‖ … ‖ chunk n−1          all of chunk_bytes bytes
    manifest                =  [kind, size, chunk_count, chunk_bytes, SHA-256(payload), file_key]

Cutting and joining are here; sealing a chunk under the file key, and its token, hint and envelope, are for
`keys.chunks`; where opened chunks lie until the last one comes is for the caller (`client.store`), who hands in a
function that reads one. Rules:

* count and size of the chunks depend on the padded length alone, so the relay learns a large message's padded size and
  no more; a manifest with another plan is refused;
* a chunk is accepted in any order and any number of times; what is here is one bit a chunk, and survives a restart;
* nothing is shown before it is whole and its hash right: `pieces` reads everything twice, one chunk in memory;
* what is not whole at its expiry is a typed failure (`client.errors.Incomplete`).
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from typing import Annotated, Final

from msgspec import Meta

from client.content import OWN_COPY_BYTES_MAX, Content, Kind, payload_bytes_max
from client.errors import Incomplete
from wire.codec import Hash, Key, Record, decode, encode
from wire.errors import FormatError
from wire.limits import CHUNK_BYTES_MAX, CHUNK_BYTES_MIN, CHUNK_BYTES_STEP, KEY_BYTES
from wire.padding import padme

__all__ = [
    "CHUNKS_MAX",
    "Assembly",
    "ChunkPlan",
    "Manifest",
    "chunk_at",
    "chunks",
    "decode_manifest",
    "encode_manifest",
    "make_manifest",
    "manifest_content",
    "message_content",
    "plan_chunks",
]

_MARK: Final = b"\x80"


@dataclass(frozen=True)
class ChunkPlan:
    """How many chunks a payload of `size` bytes takes, and how long each is."""

    size: int
    chunk_count: int
    chunk_bytes: int


def plan_chunks(size: int) -> ChunkPlan:
    """The one plan for a payload of that size, in bytes.

    Raises:
        FormatError: a size that no payload has.
    """
    if not 0 <= size <= OWN_COPY_BYTES_MAX:
        raise FormatError("size", f"is {size}", OWN_COPY_BYTES_MAX)
    padded = padme(size + 1)
    count = _divided_up(padded, CHUNK_BYTES_MAX)
    chunk_bytes = max(CHUNK_BYTES_MIN, CHUNK_BYTES_STEP * _divided_up(_divided_up(padded, count), CHUNK_BYTES_STEP))
    return ChunkPlan(size, _divided_up(padded, chunk_bytes), chunk_bytes)


def _divided_up(dividend: int, divisor: int) -> int:
    return -(-dividend // divisor)


CHUNKS_MAX: Final = plan_chunks(OWN_COPY_BYTES_MAX).chunk_count
"""Chunks of the largest message."""

_Count = Annotated[int, Meta(ge=1, le=CHUNKS_MAX)]
_Size = Annotated[int, Meta(ge=0, le=OWN_COPY_BYTES_MAX)]
_ChunkBytes = Annotated[int, Meta(ge=CHUNK_BYTES_MIN, le=CHUNK_BYTES_MAX, multiple_of=CHUNK_BYTES_STEP)]


class Manifest(Record, frozen=True):
    """What a recipient device needs to find, open and check the chunks.

    Attributes:
        kind: the kind of the message itself.
        size: the payload's bytes.
        chunk_count: how many chunks.
        chunk_bytes: the plaintext of each, in bytes.
        payload_hash: SHA-256 of the payload.
        file_key: 32 random bytes, of this recipient device alone.
    """

    kind: Kind
    size: _Size
    chunk_count: _Count
    chunk_bytes: _ChunkBytes
    payload_hash: Hash
    file_key: Key

    @property
    def plan(self) -> ChunkPlan:
        """Count and size of the chunks."""
        return ChunkPlan(self.size, self.chunk_count, self.chunk_bytes)

    def __repr__(self) -> str:
        """Kind and sizes; the file key opens every chunk, and the hash names the content."""
        return f"Manifest(kind={self.kind.name}, size={self.size}, chunk_count={self.chunk_count})"


def make_manifest(kind: Kind, payload: bytes, file_key: bytes) -> Manifest:
    """The manifest of a payload for one recipient device.

    Args:
        kind: the kind of the message itself.
        payload: its payload.
        file_key: 32 fresh random bytes.

    Raises:
        FormatError: a limit, a key of another length, or the manifest of a manifest.
    """
    plan = plan_chunks(len(payload))
    manifest = Manifest(kind, plan.size, plan.chunk_count, plan.chunk_bytes, sha256(payload).digest(), file_key)
    _check_manifest(manifest)
    return manifest


def encode_manifest(manifest: Manifest) -> bytes:
    """The payload of a content of kind manifest."""
    _check_manifest(manifest)
    return encode(manifest)


def decode_manifest(content: Content) -> Manifest:
    """The manifest that a content carries.

    Raises:
        FormatError: the content is of another kind, or the manifest breaks a rule of section 8.
    """
    if content.kind is not Kind.MANIFEST:
        raise FormatError("kind", f"is {content.kind.name.lower()}, not manifest")
    manifest = decode(Manifest, content.payload, "manifest")
    _check_manifest(manifest)
    return manifest


def manifest_content(content: Content, file_key: bytes, token: bytes) -> Content:
    """The content that announces the chunks of `content` to one recipient device.

    Args:
        content: the message itself.
        file_key: 32 fresh random bytes.
        token: the ack token of the manifest's own envelope.

    Raises:
        FormatError: a limit of section 8.
    """
    payload = encode_manifest(make_manifest(content.kind, content.payload, file_key))
    return Content(
        token, Kind.MANIFEST, content.message_id, content.sent_ms, content.reply_to, content.audience, payload
    )


def message_content(announced: Content, manifest: Manifest, payload: bytes) -> Content:
    """The message itself, once its payload is whole: what `manifest_content` was given, but for the token."""
    return Content(
        announced.token,
        manifest.kind,
        announced.message_id,
        announced.sent_ms,
        announced.reply_to,
        announced.audience,
        payload,
    )


def _check_manifest(manifest: Manifest) -> None:
    if manifest.kind is Kind.MANIFEST:
        raise FormatError("manifest.kind", "is a manifest of a manifest")
    if len(manifest.file_key) != KEY_BYTES:
        raise FormatError("manifest.file_key", f"has {len(manifest.file_key)} bytes, not {KEY_BYTES}", KEY_BYTES)
    limit = payload_bytes_max(manifest.kind)
    if manifest.size > limit:
        raise FormatError("manifest.size", f"is {manifest.size} for kind {manifest.kind.name.lower()}", limit)
    plan = plan_chunks(manifest.size)
    if manifest.plan != plan:
        raise FormatError(
            "manifest.chunk_count",
            f"plans {manifest.chunk_count} chunks of {manifest.chunk_bytes} bytes for a size of {manifest.size}, "
            f"not {plan.chunk_count} of {plan.chunk_bytes}",
        )


def chunk_at(payload: bytes, plan: ChunkPlan, index: int) -> bytes:
    """The plaintext of one chunk: its part of payload ‖ 0x80 ‖ zeros.

    Raises:
        FormatError: no such chunk, or a plan for another size.
    """
    if len(payload) != plan.size:
        raise FormatError("size", f"of the plan is {plan.size}, the payload has {len(payload)} bytes")
    _check_index(plan, index)
    start = index * plan.chunk_bytes
    part = payload[start : start + plan.chunk_bytes]
    if start <= plan.size < start + plan.chunk_bytes:
        part += _MARK
    return part.ljust(plan.chunk_bytes, b"\0")


def chunks(payload: bytes, plan: ChunkPlan) -> Iterator[bytes]:
    """The plaintexts of all chunks, one after the other."""
    for index in range(plan.chunk_count):
        yield chunk_at(payload, plan, index)


def _check_index(plan: ChunkPlan, index: int) -> None:
    if not 0 <= index < plan.chunk_count:
        raise FormatError("chunk", f"has number {index} of {plan.chunk_count}", plan.chunk_count - 1)


Read = Callable[[int], bytes]


class Assembly:
    """A large message on its way in: which chunks are here, and the payload once all are.

    Args:
        manifest: as decoded.
        message_id: the message's id, for the failure.
        account: the sender, for the failure.
        present: numbers of chunks that the caller has kept from before a restart.

    Raises:
        FormatError: `present` names a chunk that there is not.
    """

    def __init__(self, manifest: Manifest, message_id: bytes, account: str, present: Iterable[int] = ()) -> None:
        self.manifest = manifest
        self._message_id = message_id
        self._account = account
        self._present: set[int] = set()
        for index in present:
            _check_index(manifest.plan, index)
            self._present.add(index)

    @property
    def is_whole(self) -> bool:
        """Whether every chunk is here."""
        return len(self._present) == self.manifest.chunk_count

    def missing(self) -> list[int]:
        """Numbers of the chunks that are not here, ascending."""
        return [index for index in range(self.manifest.chunk_count) if index not in self._present]

    def check(self, index: int, chunk: bytes) -> None:
        """Check an opened chunk before it is kept; nothing is noted yet.

        Raises:
            FormatError: no such number, another length, or a tail that is not 0x80 and zeros.
        """
        plan = self.manifest.plan
        _check_index(plan, index)
        if len(chunk) != plan.chunk_bytes:
            raise FormatError("chunk", f"{index} has {len(chunk)} bytes, not {plan.chunk_bytes}", plan.chunk_bytes)
        payload_bytes = self._payload_bytes(index)
        tail = _MARK if index * plan.chunk_bytes <= plan.size < (index + 1) * plan.chunk_bytes else b""
        if chunk[payload_bytes:] != tail.ljust(plan.chunk_bytes - payload_bytes, b"\0"):
            raise FormatError("chunk", f"{index} does not end in 0x80 and zeros")

    def note(self, index: int) -> bool:
        """Note that a chunk is kept, durably, by the caller; whether it is new."""
        _check_index(self.manifest.plan, index)
        if index in self._present:
            return False
        self._present.add(index)
        return True

    def check_expiry(self, expiry: int, now: int) -> None:
        """Give up on a message that can no longer become whole.

        Args:
            expiry: the expiry of its envelopes, Unix seconds.
            now: Unix seconds.

        Raises:
            Incomplete: it has expired and chunks are missing.
        """
        if now >= expiry and not self.is_whole:
            raise Incomplete(self._message_id, self._account, len(self._present), self.manifest.chunk_count)

    def pieces(self, read: Read) -> Iterator[bytes]:
        """The payload, piece by piece, after a first pass has found it whole and its hash right.

        Args:
            read: gives the kept plaintext of a chunk.

        Raises:
            Incomplete: chunks are missing.
            FormatError: a chunk or the hash is not what the manifest says; nothing has been handed out then.
        """
        if not self.is_whole:
            raise Incomplete(self._message_id, self._account, len(self._present), self.manifest.chunk_count)
        digest = sha256()
        for piece in self._read_all(read):
            digest.update(piece)
        if digest.digest() != self.manifest.payload_hash:
            raise FormatError("manifest.payload_hash", "is not that of the chunks")
        return self._read_all(read)

    def payload(self, read: Read) -> bytes:
        """The whole payload; raises as `pieces` does."""
        return b"".join(self.pieces(read))

    def _read_all(self, read: Read) -> Iterator[bytes]:
        for index in range(self.manifest.chunk_count):
            chunk = read(index)
            self.check(index, chunk)
            yield chunk[: self._payload_bytes(index)]

    def _payload_bytes(self, index: int) -> int:
        """How much of a chunk is payload."""
        plan = self.manifest.plan
        return min(plan.chunk_bytes, max(0, plan.size - index * plan.chunk_bytes))
