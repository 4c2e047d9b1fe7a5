"""What a device and its gateway say to each other: the local protocol (docs/architecture.md, the gateway's way).

It runs over whatever carries packets in order between the two (a queue in one process; a local socket), and is no part
of the protocol between gateway and relay, which sees one link with several devices (protocol.md section 6.2).

    device                                    gateway                                      relay
           ◀── Challenge: 16 random bytes
    Join ──▶   device key, mailbox, signature over L("gateway-join") ‖ relay id ‖ nonce ‖ mailbox
                                                 hello ──────────────────────────────────▶
                                                       ◀────────────────────────────────── welcome
           ◀── Offer: hello and welcome, as they were sent
    Proof ─▶   the device has checked that its card's relay signed; now it signs the transcript itself
                                                 prove: all proofs ──────────────────────▶
                                                       ◀────────────────────────────────── linked
           ◀── Confirmed
    Ask ───▶   commands, as in a frame           frames, many devices each ──────────────▶
           ◀── Answers: this device's part       ◀──────────────────────────────────────── frames
    Settle ▶   refs that nobody waits for

No private key crosses it: a signature is good for one link, and for the relay of the card. What is asked is ciphertext
and the metadata that the relay sees as well. Refs are the device's own; the gateway has others towards the relay.
"""

from typing import Annotated, Final

from msgspec import Meta

from wire.codec import U32, U64, Hash, Id, Key, Record, Signature
from wire.commands import LinkedDevice, RelayCommand
from wire.limits import FRAME_BYTES_MAX
from wire.link import check_welcome, sign_proof
from wire.rotation import RotationRecord
from wire.signing import SigningKey, verify

__all__ = [
    "Answers",
    "Ask",
    "Challenge",
    "Confirmed",
    "DeviceMessage",
    "GatewayMessage",
    "Heard",
    "Join",
    "Offer",
    "Proof",
    "Settle",
    "answer_offer",
    "check_join",
    "sign_join",
]

_JOIN: Final = "gateway-join"
_Bytes = Annotated[bytes, Meta(min_length=1, max_length=FRAME_BYTES_MAX)]


class Challenge(Record, frozen=True, tag=0):
    """First word of the gateway: what a join must be signed over, so that nobody's is used twice."""

    nonce: Id


class Offer(Record, frozen=True, tag=1):
    """A handshake under way: sign its transcript, and the link speaks for you. Hello without its packet byte."""

    hello: _Bytes
    welcome: _Bytes


class Confirmed(Record, frozen=True, tag=2):
    """The link of that transcript stands; what the relay holds of the device, and its time, Unix seconds."""

    transcript: Hash
    time: U64
    device: LinkedDevice


class Answers(Record, frozen=True, tag=3):
    """What the relay said to this device in one frame."""

    commands: Annotated[tuple[RelayCommand, ...], Meta(min_length=1)]


class Join(Record, frozen=True, tag=0):
    """A device asks the gateway to carry it."""

    device_key: Key
    mailbox: Id
    signature: Signature


class Proof(Record, frozen=True, tag=1):
    """The device's signature over an offered transcript."""

    transcript: Hash
    signature: Signature


class Ask(Record, frozen=True, tag=2):
    """The plaintext of a frame: commands for the relay; the gateway repeats them until they are answered or settled."""

    plain: _Bytes


class Settle(Record, frozen=True, tag=3):
    """Nobody waits for these any more."""

    refs: Annotated[tuple[U32, ...], Meta(min_length=1)]


GatewayMessage = Challenge | Offer | Confirmed | Answers
DeviceMessage = Join | Proof | Ask | Settle
Heard = Offer | Confirmed | Answers


def sign_join(device: SigningKey, relay_id: bytes, nonce: bytes, mailbox: bytes) -> Join:
    """A device's answer to a challenge."""
    return Join(device.public, mailbox, device.sign(_JOIN, relay_id + nonce + mailbox))


def check_join(join: Join, relay_id: bytes, nonce: bytes) -> None:
    """Whether the device that is named made this join, for this challenge.

    Raises:
        SignatureError: it did not.
    """
    verify(join.device_key, _JOIN, relay_id + nonce + join.mailbox, join.signature)


def answer_offer(
    device: SigningKey, relay_id: bytes, first_key: bytes, offer: Offer
) -> tuple[Proof, list[RotationRecord]]:
    """A device's proof for an offered link, and the relay's rotations, both only after its own check of the welcome.

    Args:
        device: the device key.
        relay_id: of the device's own card.
        first_key: the signing key on that card.
        offer: what the gateway showed; it may be anything.

    Raises:
        FormatError: not a handshake with that relay.
        SignatureError: that relay did not sign it.
    """
    transcript, chain, _ephemeral = check_welcome(relay_id, first_key, offer.hello, offer.welcome)
    return Proof(transcript, sign_proof(device, transcript)), chain
