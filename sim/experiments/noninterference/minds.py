"""What a device says, twice: two worlds of real end-to-end cryptography on one schedule.

A device has two `Mind`s. Each has sessions, ratchets and prekey halves of its own (keys/), and contents of its own: the
first mind's are what the recorded run sends, the second's are other contents of the same padded lengths. Both encrypt
whatever the schedule has the device send, and both decrypt whatever reaches it, so that the second run's bodies are no
dummies: their recipients open them.

What the two worlds have in common is what is not a function of content: who writes to whom, when, how long the padded
text is, the prekeys that the directory shows, and the random values that a client draws to *name* an envelope: the ack
token, whose hash is the envelope's id, and for chunks the file key, from which tokens follow (protocol.md sections 5.1
and 8). A token is drawn before the text is looked at. Ephemeral keys, ratchet keys, nonces, ML-KEM shared secrets,
hints and key commitments differ: they are part of the body.
"""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from client.attachments import chunk_at, manifest_content, plan_chunks
from client.content import NO_REPLY, Content, Kind, encode_content, is_inline
from keys.chunks import FileKey
from keys.errors import HandshakeError
from keys.identity import DeviceKeys
from keys.prekeys import PrekeyRing
from keys.session import Session, ephemeral_of
from wire.errors import BlindpostError
from wire.identity import DeviceEntry, SignedList
from wire.padding import padded_length, padme
from wire.prekeys import Bundle, Prekeys

__all__ = ["WORLDS", "Letter", "Mind", "Said", "Texts", "open_in_all_worlds", "seal_in_all_worlds"]

WORLDS: Final = 2
"""The recorded contents, and the others."""

_WORDS: Final = (
    b"the loom stands behind the blue door and the lock opens with a word that nobody else was told ",
    b"no no no no no no no no no no no no no no no no no no no no no no no no no no no no no no ",
)
_SENT_MS: Final = (1_448_841_600_123, 1_448_999_999_877)
_KINDS: Final = (Kind.CHAT, Kind.EMAIL)


@dataclass(frozen=True, repr=False)
class Letter:
    """One envelope before it is encrypted.

    Attributes:
        token: t, the same in both worlds.
        contents: what is encrypted in each world; for a chunk the plaintext.
        file_key: of a chunk; None for a message.
        index: of a chunk.
    """

    token: bytes
    contents: tuple[bytes, ...]
    file_key: FileKey | None = None
    index: int = 0

    def __repr__(self) -> str:
        return f"Letter(chunk={self.file_key is not None}, contents=<redacted>)"


@dataclass(frozen=True, repr=False)
class Said:
    """One envelope that was encrypted: a body for each world, and who can open it.

    Attributes:
        sender: the device key that wrote it.
        recipient: the device key that it is for.
        letter: what is in it.
        bodies: one a world.
    """

    sender: bytes
    recipient: bytes
    letter: Letter
    bodies: tuple[bytes, ...]

    def __repr__(self) -> str:
        return f"Said(bytes={len(self.bodies[0])}, letter=<redacted>)"


class Mind:
    """One world's secrets on one device.

    Args:
        device: its keys.
        ring_seed: the same in both worlds: the directory shows one set of prekeys.
        own_seed: of ephemeral and ratchet keys and nonces.
        now_s: Unix time.
        one_time: how many one-time prekeys to begin with.
    """

    def __init__(self, device: DeviceKeys, ring_seed: str, own_seed: str, now_s: int, one_time: int) -> None:
        self.device = device
        self.entropy = random.Random(own_seed).randbytes
        self.ring, self.upload = PrekeyRing.generate(device, now_s, one_time, random.Random(ring_seed).randbytes)
        self._sessions: dict[bytes, list[Session]] = {}

    def __repr__(self) -> str:
        return f"Mind(device={self.device.public.hex()}, sessions={len(self._sessions)}, secrets=<redacted>)"

    def knows(self, device_key: bytes) -> bool:
        """Whether there is a session to send to that device on."""
        return device_key in self._sessions

    def begin(self, own_list: SignedList, peer: DeviceEntry, bundle: Bundle) -> None:
        """Start a session."""
        session = Session.initiate(self.device, own_list, peer, bundle, self.entropy)
        self._sessions.setdefault(peer.device_key, []).append(session)

    def seal(self, recipient: bytes, content: bytes, envelope_id: bytes) -> bytes:
        """The body of a message."""
        return self._sessions[recipient][-1].encrypt(content, envelope_id)

    def open(self, said: Said, body: bytes, envelope_id: bytes, now_s: int) -> bytes:
        """The content of a body.

        Raises:
            BlindpostError: it does not open.
        """
        if said.letter.file_key is not None:
            return said.letter.file_key.open(said.letter.index, body, envelope_id, said.sender, self.device.public)
        sessions = self._sessions.setdefault(said.sender, [])
        for session in sessions:
            try:
                content = session.decrypt(body, envelope_id, now_s)
            except BlindpostError:
                continue
            # Each side sends on the session that it last received on.
            sessions.remove(session)
            sessions.append(session)
            return content
        if any(session.accepted and session.ephemeral == ephemeral_of(body) for session in sessions):
            raise HandshakeError("a first body of a session that is there does not open")
        accepted = Session.accept(
            self.device, self.ring, body, envelope_id, now_s, check_sender=lambda _inbound: None, entropy=self.entropy
        )
        sessions.append(accepted.session)
        return accepted.content

    def publish(self, one_time: int) -> Prekeys:
        """The newest prekeys once more, with fresh one-time ones."""
        return self.ring.publish_again(one_time)


class Texts:
    """Makes what the two worlds write.

    Args:
        rng: draws tokens, file keys and message ids.
    """

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng

    def contents(self, payload_bytes: int, audience: tuple[str, ...]) -> tuple[Content, ...]:
        """One message in each world: other kind, time, id and text, and the same length once it is padded."""
        first = self._content(0, payload_bytes, audience)
        if not _is_inline(first):
            # Of a large message the plan of its chunks is what shows; it depends on the padded size alone.
            return first, self._content(1, _other_length(payload_bytes, lambda size: padme(size + 1)), audience)
        around = len(encode_content(first)) - payload_bytes - _header_bytes(payload_bytes)
        second = self._content(
            1, _other_length(payload_bytes, lambda size: padded_length(around + _header_bytes(size) + size)), audience
        )
        return first, second if _is_inline(second) else self._content(1, payload_bytes, audience)

    def _content(self, world: int, payload_bytes: int, audience: tuple[str, ...]) -> Content:
        words = _WORDS[world]
        payload = (words * (payload_bytes // len(words) + 1))[:payload_bytes]
        ids = self._rng.randbytes(16)
        return Content(bytes(16), _KINDS[world], ids, _SENT_MS[world], NO_REPLY, audience, payload)

    def letters(self, contents: tuple[Content, ...]) -> Iterator[Letter]:
        """The envelopes of one message to one device: itself, or its chunks and then their manifest."""
        token = self._rng.randbytes(16)
        if _is_inline(contents[0]):
            yield Letter(token, tuple(encode_content(_with_token(content, token)) for content in contents))
            return
        key = self._rng.randbytes(32)
        file_key = FileKey(key)
        plans = [plan_chunks(len(content.payload)) for content in contents]
        assert len({(plan.chunk_count, plan.chunk_bytes) for plan in plans}) == 1, "one padded size, one plan"
        for index in range(plans[0].chunk_count):
            pieces = (chunk_at(content.payload, plan, index) for content, plan in zip(contents, plans, strict=True))
            yield Letter(file_key.token(index), tuple(pieces), file_key, index)
        yield Letter(token, tuple(encode_content(manifest_content(content, key, token)) for content in contents))


def _with_token(content: Content, token: bytes) -> Content:
    return Content(token, *(getattr(content, name) for name in content.__struct_fields__[1:]))


def _is_inline(content: Content) -> bool:
    return is_inline(content.kind, len(encode_content(content)))


def _header_bytes(size: int) -> int:
    """What MessagePack puts before so many bytes."""
    return 2 if size < 1 << 8 else 3 if size < 1 << 16 else 5


def _other_length(length: int, padded: Callable[[int], int]) -> int:
    """Another length that is padded to the same: the longest; the one below where it is that already."""
    least, most, wanted = length, length + length // 4 + 256, padded(length)
    while least < most:
        middle = (least + most + 1) // 2
        if padded(middle) == wanted:
            least = middle
        else:
            most = middle - 1
    if least == length > 1 and padded(length - 1) == wanted:
        return length - 1
    return least


def seal_in_all_worlds(
    minds: tuple[Mind, ...], recipient: bytes, letter: Letter, envelope_id: bytes, rng: random.Random
) -> Said:
    """Encrypt a letter in each world."""
    sender = minds[0].device.public
    if letter.file_key is None:
        bodies = tuple(
            mind.seal(recipient, content, envelope_id) for mind, content in zip(minds, letter.contents, strict=True)
        )
    else:
        bodies = tuple(
            letter.file_key.seal(letter.index, content, sender, recipient, rng.randbytes) for content in letter.contents
        )
    return Said(sender, recipient, letter, bodies)


def open_in_all_worlds(minds: tuple[Mind, ...], said: Said, envelope_id: bytes, now_s: int) -> int:
    """Decrypt an envelope in each world, and compare with what was written; return how many opened rightly.

    Raises:
        BlindpostError: one does not open.
    """
    opened = 0
    for mind, body, content in zip(minds, said.bodies, said.letter.contents, strict=True):
        if mind.open(said, body, envelope_id, now_s) != content:
            raise BlindpostError("a body opened to another content than was written")
        opened += 1
    return opened
