"""How the clients of an episode make bodies: the real way of keys/, and eight clients that leak in one way each.

Honest is `keys.session.Session` with the real ratchet: hints, header encryption, key commitment, XChaCha20-Poly1305 and
PADMÉ, its entropy from the episode's chance. What a session begins with (root, header keys, the peer's prekey) is drawn
instead of agreed by PQXDH: the handshake sees no content, and ML-KEM takes no seed.

Every twin but the historical one starts from an honest body and breaks one thing. Each is a client's cheat, as
the relay, which cannot read, has nothing to cheat with; the relay's own are the business of other experiments.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Final, TypeAlias

from client.content import Content, Kind, encode_content
from keys.agreement import x_public
from keys.chain import chain_step
from keys.message import HEADER_END, NONCE_BYTES, NONCE_END, TAG_BYTES, aead_seal, associated_data, message_keys
from keys.ratchet import Ratchet
from keys.session import Session
from sim.experiments.game.chance import Chance
from sim.historical import scramble
from wire.limits import BODY_BYTES_MIN, KEY_BYTES
from wire.padding import pad

__all__ = ["HONEST", "SUITES", "Lane", "Suite"]

_PIN_SLACK_BYTES: Final = 12
"""What sim/historical.py writes before the content, in the length that it pads: zeros and length less one block."""


ContentSeal: TypeAlias = Callable[[bytes, bytes, bytes, bytes], bytes]


class Lane:
    """One direction between two devices: a session of the sender's.

    Args:
        chance: where its keys come from.
        sender: device key.
        recipient: device key.
    """

    def __init__(self, chance: Chance, sender: bytes, recipient: bytes) -> None:
        self.chance = chance
        self.sender, self.recipient = sender, recipient
        self.nonce = b""
        """The nonce of the next body, of a client that does not draw it."""
        self._root, self._header, self._next_header, self._prekey = (chance(KEY_BYTES) for _ in range(4))
        self._ephemeral = chance(KEY_BYTES)
        ratchet = Ratchet.initiator(self._root, self._header, self._next_header, x_public(self._prekey), self._draw)
        self.session = Session(sender, recipient, self._ephemeral, ratchet)

    def __repr__(self) -> str:
        return f"Lane(session={self.session!r}, keys=<redacted>)"

    def _draw(self, count: int) -> bytes:
        return self.nonce if self.nonce and count == NONCE_BYTES else self.chance(count)

    def recipients_session(self) -> Session:
        """The other end, which opens what this one makes."""
        ratchet = Ratchet.responder(self._root, self._header, self._next_header, self._prekey, self.chance)
        return Session(self.recipient, self.sender, self._ephemeral, ratchet)

    def resealed(
        self, content: bytes, envelope_id: bytes, seal: Callable[[bytes, bytes, bytes, bytes], bytes]
    ) -> bytes:
        """An honest body whose content a twin has sealed in its own way, under the message key of that body.

        Args:
            content: the encoded content.
            envelope_id: of its envelope.
            seal: from content, associated data, nonce and encryption key to what stands behind the header.
        """
        ratchet = self.session.ratchet
        if not ratchet.chain_send:
            # The first sending step comes with the first body; that body is thrown away.
            self.session.encrypt(b"", envelope_id)
        encryption_key = message_keys(chain_step(ratchet.chain_send)[1])[0]
        start = self.session.encrypt(content, envelope_id)[:HEADER_END]
        associated = associated_data(self.sender, self.recipient, envelope_id, start)
        return start + seal(content, associated, start[NONCE_END - NONCE_BYTES : NONCE_END], encryption_key)

    def stuck(self, content: bytes, envelope_id: bytes, nonce: bytes) -> bytes:
        """A body under the same message key as all others of this lane, whose ratchet's chain does not move."""
        ratchet = self.session.ratchet
        if not ratchet.chain_send:
            self.session.encrypt(b"", envelope_id)
        chain = ratchet.chain_send
        self.nonce = nonce
        body = self.session.encrypt(content, envelope_id)
        self.nonce = b""
        ratchet.chain_send = chain
        return body


Seal: TypeAlias = Callable[[Lane, Content, bytes], bytes]


@dataclass(frozen=True)
class Suite:
    """A way to make bodies, and to send them.

    Attributes:
        name: as in the plan.
        cheat: what leaks, in words; empty for the honest one.
        seal: from lane, content and envelope id to a body.
        slack_bytes: what it adds to a content before padding, beyond the 0x80 byte.
        mail_waits: mail leaves at the next full second, chat at once.
        mail_tablet_first: mail goes to the tablet before the phone, chat the other way round.
    """

    name: str
    cheat: str
    seal: Seal
    slack_bytes: int = 0
    mail_waits: bool = False
    mail_tablet_first: bool = False


def _honest(lane: Lane, content: Content, envelope_id: bytes) -> bytes:
    return lane.session.encrypt(encode_content(content), envelope_id)


def _no_padding(lane: Lane, content: Content, envelope_id: bytes) -> bytes:
    least = BODY_BYTES_MIN - HEADER_END - TAG_BYTES

    def seal(plain: bytes, associated: bytes, nonce: bytes, key: bytes) -> bytes:
        return aead_seal((plain + b"\x80").ljust(least, b"\0"), associated, nonce, key)

    return lane.resealed(encode_content(content), envelope_id, seal)


def _nonce_reuse(lane: Lane, content: Content, envelope_id: bytes) -> bytes:
    return lane.stuck(encode_content(content), envelope_id, blake2b(lane.recipient, digest_size=NONCE_BYTES).digest())


def _deterministic(lane: Lane, content: Content, envelope_id: bytes) -> bytes:
    nonce = blake2b(content.payload, digest_size=NONCE_BYTES).digest()
    return lane.stuck(encode_content(content), envelope_id, nonce)


def _historical(lane: Lane, content: Content, envelope_id: bytes) -> bytes:
    return scramble(encode_content(content), lane.chance)


def _kind_flag(lane: Lane, content: Content, envelope_id: bytes) -> bytes:
    lane.nonce = bytes((content.kind,)) + lane.chance(NONCE_BYTES - 1)
    body = _honest(lane, content, envelope_id)
    lane.nonce = b""
    return body


def _cleartext(lane: Lane, content: Content, envelope_id: bytes) -> bytes:
    return lane.resealed(encode_content(content), envelope_id, lambda plain, _ad, _nonce, _key: pad(plain) + bytes(16))


HONEST: Final = Suite("honest", "", _honest)

SUITES: Final[Mapping[str, Suite]] = {
    suite.name: suite
    for suite in (
        Suite("no padding", "pads to the relay's minimum of 400 bytes and no further", _no_padding),
        Suite("nonce reuse", "has one message key and one nonce for a whole session", _nonce_reuse),
        Suite(
            "deterministic", "has one message key for a session, and the nonce is a hash of the payload", _deterministic
        ),
        Suite(
            "historical key",
            "protects bodies by Triple DES under the global PIN key, which the adversary has",
            _historical,
            slack_bytes=_PIN_SLACK_BYTES,
        ),
        Suite("kind flag", "puts the kind, mail or chat, into the first byte of the nonce", _kind_flag),
        Suite("cleartext", "pads the content and does not encrypt it", _cleartext),
        Suite("timed", "lets mail wait for the next full second, and chat leave at once", _honest, mail_waits=True),
        Suite(
            "ordered",
            "sends mail to the tablet first, and chat to the phone first",
            _honest,
            mail_tablet_first=True,
        ),
    )
}


def is_mail(content: Content) -> bool:
    """Whether a cheat about mail applies."""
    return content.kind is Kind.EMAIL
