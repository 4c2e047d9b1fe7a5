"""Sessions between two devices: a handshake, then a ratchet (protocol.md sections 4.1 to 4.3).

    session = Session.initiate(own, own_list, peer, bundle)
    body = session.encrypt(content, envelope_id)             make session.to_bytes() durable, then let the body leave

    accepted = Session.accept(own, ring, body, envelope_id, now_s, check_sender=pinned)
    content = session.decrypt(body, envelope_id, now_s)

It leaves to the caller: which session a body belongs to (keys/hints.py), time, storage, the envelope ids seen (an
envelope is processed once), and the content structure with its ack token.

Rules:

* A repeats the handshake in each body until it has decrypted a reply;
* nothing moves, and no prekey is erased, before the content has verified;
* the associated data names sender device, recipient device, envelope id and suite: a body that is turned round, moved
  to another envelope, or sent in another suite does not authenticate.
"""

import os
from collections.abc import Callable
from hashlib import sha256
from typing import Annotated, Final, NamedTuple

from msgspec import Meta

from keys.agreement import Encapsulate, Entropy, encapsulate
from keys.errors import AuthenticationFailed
from keys.handshake import Inbound, first_offset, initiate, open_inbound
from keys.identity import DeviceKeys
from keys.message import HEADER_END, Opening, associated_start, check_envelope_id, open_with_message_key
from keys.prekeys import PrekeyRing
from keys.ratchet import Ratchet
from wire.codec import Key, SecretRecord, decode, encode
from wire.errors import FormatError
from wire.identity import DeviceEntry, SignedList
from wire.limits import ID_BYTES, KEY_BYTES
from wire.prekeys import Bundle

__all__ = ["Accepted", "Session", "ephemeral_of", "opening_of_first"]

NONE: Final = b""
CheckSender = Callable[[Inbound], None]
"""Raises what it likes if the sender's list is not the pinned account's; then nothing has moved."""


class _StoredSession(SecretRecord, frozen=True):
    version: Annotated[int, Meta(ge=1, le=1)]
    own_device: Key
    peer_device: Key
    ephemeral: Key
    first_digest: Annotated[bytes, Meta(max_length=KEY_BYTES)]
    prekey_id: Annotated[bytes, Meta(max_length=ID_BYTES)]
    prefix: bytes
    ratchet: bytes


class Accepted(NamedTuple):
    """A session that a first message began, its content, and who the sender is."""

    session: "Session"
    content: bytes
    inbound: Inbound


class Session:
    """One session between our device and one of a peer. Its repr shows devices and counters only."""

    __slots__ = (
        "_associated_in",
        "_associated_out",
        "_first_digest",
        "_prefix",
        "_prekey_id",
        "ephemeral",
        "own_device",
        "peer_device",
        "ratchet",
    )

    def __init__(
        self,
        own_device: bytes,
        peer_device: bytes,
        ephemeral: bytes,
        ratchet: Ratchet,
        *,
        first_digest: bytes = NONE,
        prekey_id: bytes = NONE,
        prefix: bytes = NONE,
    ) -> None:
        self.own_device = own_device
        self.peer_device = peer_device
        self.ephemeral = ephemeral
        self.ratchet = ratchet
        self._first_digest = first_digest
        self._prekey_id = prekey_id
        self._prefix = prefix
        self._associated_out = associated_start(own_device, peer_device)
        self._associated_in = associated_start(peer_device, own_device)

    def __repr__(self) -> str:
        return (
            f"Session(own_device={self.own_device.hex()}, peer_device={self.peer_device.hex()}, "
            f"replied={self.replied}, ratchet={self.ratchet!r})"
        )

    # ------------------------------------------------------------------ beginning

    @classmethod
    def initiate(
        cls,
        own: DeviceKeys,
        own_list: SignedList,
        peer: DeviceEntry,
        bundle: Bundle,
        entropy: Entropy = os.urandom,
        kem: Encapsulate = encapsulate,
    ) -> "Session":
        """Start a session with a device; see `keys.handshake.initiate` for arguments and errors."""
        outbound = initiate(own, own_list, peer, bundle, entropy, kem)
        root, header_a, next_header_b = outbound.secrets
        ratchet = Ratchet.initiator(root, header_a, next_header_b, outbound.signed_prekey, entropy)
        return cls(
            own.public,
            peer.device_key,
            outbound.prefix[:KEY_BYTES],
            ratchet,
            prekey_id=outbound.prekey_id,
            prefix=outbound.prefix,
        )

    @classmethod
    def accept(
        cls,
        own: DeviceKeys,
        ring: PrekeyRing,
        body: bytes,
        envelope_id: bytes,
        now_s: int,
        *,
        check_sender: CheckSender,
        entropy: Entropy = os.urandom,
    ) -> Accepted:
        """Accept the session of a first body. Make session *and ring* durable in one transaction with the content.

        Args:
            own: our device.
            ring: its prekeys; the one-time half is erased if, and only if, this returns.
            body: the body.
            envelope_id: the id of its envelope.
            now_s: Unix time in seconds.
            check_sender: compares the sender's verified list with the account that is pinned; raises to refuse.
            entropy: where later ratchet keys come from.

        Raises:
            HandshakeError: see `keys.handshake.open_inbound`; also a handshake that was accepted before.
            DecryptionError: the content does not open.
            FormatError, SignatureError: malformed, or the sender's list does not verify.
        """
        inbound = open_inbound(own, ring, body)
        ring.check_fresh(inbound.prekey_id, inbound.handshake_id)
        check_sender(inbound)
        session = cls._of_inbound(own, inbound, entropy)
        content = session.decrypt(body, envelope_id, now_s)
        ring.consume(inbound.prekey_id, inbound.handshake_id)
        return Accepted(session, content, inbound)

    @classmethod
    def _of_inbound(cls, own: DeviceKeys, inbound: Inbound, entropy: Entropy) -> "Session":
        root, header_a, next_header_b = inbound.secrets
        ratchet = Ratchet.responder(root, header_a, next_header_b, inbound.signed_private, entropy)
        return cls(
            own.public,
            inbound.sender_device,
            inbound.prefix[:KEY_BYTES],
            ratchet,
            first_digest=_first_digest(inbound.prekey_id, inbound.prefix),
        )

    # ------------------------------------------------------------------ messages

    @property
    def accepted(self) -> bool:
        """Whether the peer began the session, so that first bodies may come in it."""
        return bool(self._first_digest)

    @property
    def replied(self) -> bool:
        """Whether first bodies are over: we did not begin the session, or the peer has answered in it."""
        return not self._prekey_id

    def encrypt(self, content: bytes, envelope_id: bytes) -> bytes:
        """The body for a content. The state has moved: make it durable before the body leaves.

        Raises:
            FormatError: the content exceeds 65,536 bytes. Nothing has moved.
        """
        associated = self._associated_out + check_envelope_id(envelope_id)
        return self.ratchet.encrypt(content, associated, self._prekey_id, self._prefix)

    def decrypt(self, body: bytes, envelope_id: bytes, now_s: int) -> bytes:
        """The content of a body of this session, ordinary or first.

        Raises:
            DecryptionError: does not open. Nothing has moved.
            FormatError: malformed. Nothing has moved.
        """
        associated = self._associated_in + check_envelope_id(envelope_id)
        if self._first_digest and self.is_first(body):
            return self.ratchet.decrypt(body, associated, self._check_first(body), now_s, first=True)
        content = self.ratchet.decrypt(body, associated, HEADER_END, now_s)
        if self._prekey_id:
            self._prekey_id = self._prefix = NONE
        return content

    def message_key_of(self, body: bytes, envelope_id: bytes, now_s: int) -> Opening:
        """What opens this body and nothing else, to be volunteered; no state moves.

        Works for any body that `decrypt` would open now, those that skipped keys cover among them. The message key is
        checked against the body, so that what is volunteered does open it.

        Raises:
            DecryptionError: not of this session, or its key is used and erased.
        """
        first = bool(self._first_digest) and self.is_first(body)
        offset = self._check_first(body) if first else HEADER_END
        message_key = self.ratchet.message_key_of(body, now_s, first=first)
        opening = Opening(message_key, self.peer_device, self.own_device, offset)
        open_with_message_key(body, envelope_id, opening)
        return opening

    def is_first(self, body: bytes) -> bool:
        """Whether this is a first body of this session's handshake."""
        return body[HEADER_END : HEADER_END + KEY_BYTES] == self.ephemeral

    def _check_first(self, body: bytes) -> int:
        offset = first_offset(body)
        if _first_digest(body[:16], body[HEADER_END:offset]) != self._first_digest:
            # "Neither may differ within a session" (protocol.md section 4.1).
            raise AuthenticationFailed("handshake of a first body")
        return offset

    # ------------------------------------------------------------------ storage

    def to_bytes(self) -> bytes:
        """The whole session, for sealed storage only."""
        return encode(
            (
                1,
                self.own_device,
                self.peer_device,
                self.ephemeral,
                self._first_digest,
                self._prekey_id,
                self._prefix,
                self.ratchet.to_bytes(),
            )
        )

    @classmethod
    def from_bytes(cls, data: bytes, entropy: Entropy = os.urandom) -> "Session":
        """What `to_bytes` wrote.

        Raises:
            FormatError: anything else.
        """
        stored = decode(_StoredSession, data, "session")
        if len(stored.prekey_id) not in {0, ID_BYTES} or len(stored.first_digest) not in {0, KEY_BYTES}:
            raise FormatError("session", "has a prekey id or digest of a wrong length")
        if bool(stored.prekey_id) != bool(stored.prefix):
            raise FormatError("session", "has half a handshake")
        return cls(
            stored.own_device,
            stored.peer_device,
            stored.ephemeral,
            Ratchet.from_bytes(stored.ratchet, entropy),
            first_digest=stored.first_digest,
            prekey_id=stored.prekey_id,
            prefix=stored.prefix,
        )


def ephemeral_of(body: bytes) -> bytes:
    """Where a first body has its EK, which names the session that it began. Of other bodies: 32 bytes of ciphertext."""
    return body[HEADER_END : HEADER_END + KEY_BYTES]


def opening_of_first(own: DeviceKeys, ring: PrekeyRing, body: bytes, envelope_id: bytes, now_s: int) -> Opening:
    """What opens a first body whose session is not accepted yet, to be volunteered; nothing moves or is erased.

    Raises:
        HandshakeError, DecryptionError, FormatError, SignatureError: as `Session.accept`.
    """
    inbound = open_inbound(own, ring, body)
    return Session._of_inbound(own, inbound, os.urandom).message_key_of(body, envelope_id, now_s)


def _first_digest(prekey_id: bytes, prefix: bytes) -> bytes:
    return sha256(prekey_id + prefix).digest()
