"""Links: handshake and frame sealing, the bytes of both roles (protocol.md section 6.2).

    device                                   relay
    begin_hello ──────── hello ────────▶ answer_hello
    accept_welcome ◀──── welcome ─────── (signed by the relay; a gateway takes it by open_welcome and prove_packet, and
                                          its devices sign by check_welcome and sign_proof)
        └─────────────── prove ────────▶ accept_prove        (signed by each device, under the link's key)
    FrameOpener ◀─────── frame 1: linked, …                   (confirms the keys to the device)

The broker between the two is trusted with nothing: it may drop, delay, replay, reorder and inject. Nothing here keeps
time, sends or decides: when to answer, to repeat and to give up is left to relay/core/links.py and client/link.py.
Randomness is handed in as `entropy`, a function from a number of bytes to that many secret random bytes.

Why secretbox with a counter as nonce and no associated data: the link id only finds the key, and the counter is the
nonce, so a changed one fails the tag. Each direction has its own key: a frame sent back to its sender opens nothing.
"""

from collections.abc import Callable, Sequence
from hashlib import sha256
from typing import Annotated, Final

from msgspec import Meta
from nacl.bindings import (
    crypto_kx_client_session_keys,
    crypto_kx_seed_keypair,
    crypto_kx_server_session_keys,
    crypto_secretbox,
    crypto_secretbox_open,
)
from nacl.exceptions import CryptoError

from wire.codec import Id, Key, Record, Signature, decode, encode
from wire.errors import FormatError
from wire.hashing import keyed, label
from wire.limits import DEVICES_PER_LINK_MAX, FRAME_BYTES_MAX, KEY_BYTES, PROTOCOL_VERSION
from wire.rotation import RotationRecord, Rotations, follow_rotations
from wire.signing import SigningKey, verify

__all__ = [
    "FRAME",
    "FRAME_OVERHEAD_BYTES",
    "HELLO",
    "PROVE",
    "UNKNOWN_LINK",
    "WELCOME",
    "DeviceProof",
    "FrameOpener",
    "FrameSealer",
    "LinkKeys",
    "PendingHello",
    "PendingLink",
    "accept_prove",
    "accept_welcome",
    "answer_hello",
    "begin_hello",
    "check_welcome",
    "link_id_of",
    "open_welcome",
    "packet_kind",
    "prove_packet",
    "sign_proof",
    "unknown_link",
    "verify_proof",
]

HELLO: Final = 1
WELCOME: Final = 2
PROVE: Final = 3
FRAME: Final = 4
UNKNOWN_LINK: Final = 5

LINK_ID_BYTES: Final = 8
COUNTER_BYTES: Final = 8
# Kind 1, link id 8, counter 8, Poly1305 tag 16.
FRAME_OVERHEAD_BYTES: Final = 33
_FRAME_HEADER_BYTES: Final = 1 + LINK_ID_BYTES + COUNTER_BYTES
_NONCE_TAIL: Final = bytes(16)

Entropy = Callable[[int], bytes]


class Hello(Record, frozen=True):
    """First packet of a device."""

    version: Annotated[int, Meta(ge=PROTOCOL_VERSION, le=PROTOCOL_VERSION)]
    relay_id: Id
    ephemeral: Key
    nonce: Id


class WelcomeCore(Record, frozen=True):
    """What the relay signs of its answer, with the hello, as transcript."""

    version: Annotated[int, Meta(ge=PROTOCOL_VERSION, le=PROTOCOL_VERSION)]
    ephemeral: Key
    nonce: Id


class Welcome(Record, frozen=True):
    """The relay's answer; `rotations` lead from the card's key to the one that signs."""

    core: Annotated[bytes, Meta(min_length=1, max_length=128)]
    signature: Signature
    rotations: Rotations


class DeviceProof(Record, frozen=True):
    """A device of the link, and its signature over the transcript."""

    device_key: Key
    signature: Signature


_Proofs = Annotated[tuple[DeviceProof, ...], Meta(min_length=1, max_length=DEVICES_PER_LINK_MAX)]


class LinkKeys:
    """What a handshake ends with: link id, transcript hash, one key a direction. The repr shows the id only."""

    __slots__ = ("down_key", "link_id", "transcript", "up_key")

    def __init__(self, transcript: bytes, device_tx: bytes, device_rx: bytes) -> None:
        self.transcript = transcript
        self.link_id = transcript[:LINK_ID_BYTES]
        self.up_key = keyed(device_tx, b"bp1-link-up", transcript, KEY_BYTES)
        self.down_key = keyed(device_rx, b"bp1-link-down", transcript, KEY_BYTES)

    def __repr__(self) -> str:
        return f"LinkKeys(link_id={self.link_id.hex()}, keys=<redacted>)"


class PendingHello:
    """The device's state between hello and welcome."""

    __slots__ = ("_ephemeral_public", "_ephemeral_secret", "hello", "packet", "relay_id")

    def __init__(self, relay_id: bytes, public: bytes, secret: bytes, hello: bytes) -> None:
        self.relay_id = relay_id
        self._ephemeral_public = public
        self._ephemeral_secret = secret
        self.hello = hello
        self.packet = bytes((HELLO,)) + hello

    def __repr__(self) -> str:
        return f"PendingHello(relay_id={self.relay_id.hex()}, ephemeral=<redacted>)"

    def agree(self, transcript: bytes, relay_ephemeral: bytes) -> LinkKeys:
        """The link's keys with the relay's ephemeral key.

        Raises:
            FormatError: a key of small order.
        """
        try:
            rx, tx = crypto_kx_client_session_keys(self._ephemeral_public, self._ephemeral_secret, relay_ephemeral)
        except CryptoError:
            raise FormatError("welcome ephemeral", "gives an all-zero secret") from None
        return LinkKeys(transcript, device_tx=tx, device_rx=rx)


class PendingLink:
    """The relay's state between welcome and prove."""

    __slots__ = ("keys",)

    def __init__(self, keys: LinkKeys) -> None:
        self.keys = keys

    def __repr__(self) -> str:
        return f"PendingLink({self.keys!r})"


def packet_kind(packet: bytes) -> int:
    """The kind of a broker message.

    Raises:
        FormatError: empty, larger than a frame may be, or of no kind of this protocol.
    """
    if not packet:
        raise FormatError("packet", "is empty")
    if len(packet) > FRAME_BYTES_MAX:
        raise FormatError("packet", f"has {len(packet)} bytes", FRAME_BYTES_MAX)
    if not HELLO <= packet[0] <= UNKNOWN_LINK:
        raise FormatError("packet kind", f"{packet[0]} is unknown", UNKNOWN_LINK)
    return packet[0]


def link_id_of(packet: bytes) -> bytes:
    """The link that a prove, frame or unknown-link packet names.

    Raises:
        FormatError: the packet is too short to name one.
    """
    link_id = packet[1 : 1 + LINK_ID_BYTES]
    if len(link_id) != LINK_ID_BYTES:
        raise FormatError("link id", f"has {len(link_id)} bytes", LINK_ID_BYTES)
    return link_id


def unknown_link(link_id: bytes) -> bytes:
    """The unauthenticated hint that the relay does not know a link."""
    return bytes((UNKNOWN_LINK,)) + link_id


def begin_hello(relay_id: bytes, entropy: Entropy) -> PendingHello:
    """Start a handshake with the relay of that id; send `.packet`."""
    public, secret = crypto_kx_seed_keypair(entropy(KEY_BYTES))
    return PendingHello(relay_id, public, secret, encode(Hello(PROTOCOL_VERSION, relay_id, public, entropy(16))))


def answer_hello(
    relay_id: bytes, signing_key: SigningKey, rotations: Rotations, packet: bytes, entropy: Entropy
) -> tuple[PendingLink, bytes]:
    """The relay's answer to a hello packet: the state to keep until the prove, and the welcome packet.

    Raises:
        FormatError: not a hello to this relay, or a key of small order.
    """
    hello_bytes = packet[1:]
    hello = decode(Hello, hello_bytes, "hello")
    if hello.relay_id != relay_id:
        raise FormatError("hello", "is to another relay")
    public, secret = crypto_kx_seed_keypair(entropy(KEY_BYTES))
    core = encode(WelcomeCore(PROTOCOL_VERSION, public, entropy(16)))
    transcript = _transcript(relay_id, hello_bytes, core)
    try:
        rx, tx = crypto_kx_server_session_keys(public, secret, hello.ephemeral)
    except CryptoError:
        raise FormatError("hello ephemeral", "gives an all-zero secret") from None
    welcome = Welcome(core, signing_key.sign("link-relay", transcript), rotations)
    keys = LinkKeys(transcript, device_tx=rx, device_rx=tx)
    return PendingLink(keys), bytes((WELCOME,)) + encode(welcome)


def check_welcome(
    relay_id: bytes, first_key: bytes, hello: bytes, packet: bytes
) -> tuple[bytes, list[RotationRecord], bytes]:
    """Whether this card's relay answered that hello: the transcript, the relay's verified rotations, its ephemeral key.

    It takes no secret: a device behind a gateway checks by it what the gateway asks it to sign.

    Args:
        relay_id: of the relay's card.
        first_key: the signing key on the card.
        hello: the hello that was sent, without its packet byte.
        packet: the welcome packet.

    Raises:
        FormatError: not a hello to this relay, or not a welcome.
        SignatureError: the relay of this card did not sign it.
    """
    if decode(Hello, hello, "hello").relay_id != relay_id:
        raise FormatError("hello", "is to another relay")
    welcome = decode(Welcome, packet[1:], "welcome")
    core = decode(WelcomeCore, welcome.core, "welcome")
    chain = follow_rotations(first_key, welcome.rotations)
    transcript = _transcript(relay_id, hello, welcome.core)
    verify(chain[-1].new_key if chain else first_key, "link-relay", transcript, welcome.signature)
    return transcript, chain, core.ephemeral


def open_welcome(pending: PendingHello, first_key: bytes, packet: bytes) -> tuple[LinkKeys, list[RotationRecord]]:
    """The first half of `accept_welcome`: the link's keys and the relay's verified rotations; `prove_packet` is next.

    Raises:
        FormatError: not a welcome, or a key of small order.
        SignatureError: the relay of this card did not sign it.
    """
    transcript, chain, ephemeral = check_welcome(pending.relay_id, first_key, pending.hello, packet)
    return pending.agree(transcript, ephemeral), chain


def sign_proof(device: SigningKey, transcript: bytes) -> bytes:
    """A device's signature that lets whoever holds the link's keys speak for it on this link, and on no other."""
    return device.sign("link-device", transcript)


def verify_proof(device_key: bytes, transcript: bytes, signature: bytes) -> None:
    """Check what `sign_proof` makes.

    Raises:
        SignatureError: that device did not sign that transcript.
    """
    verify(device_key, "link-device", transcript, signature)


def prove_packet(keys: LinkKeys, proofs: Sequence[DeviceProof]) -> bytes:
    """The prove packet of a link that speaks for the devices of these proofs, 1 to 256."""
    return bytes((PROVE,)) + keys.link_id + crypto_secretbox(encode(list(proofs)), _nonce(0), keys.up_key)


def accept_welcome(
    pending: PendingHello, first_key: bytes, packet: bytes, devices: Sequence[SigningKey]
) -> tuple[LinkKeys, list[RotationRecord], bytes]:
    """The device's side of a welcome: the link's keys, the relay's verified rotations, and the prove packet to send.

    Args:
        pending: from `begin_hello`.
        first_key: the signing key on the relay's card.
        packet: the welcome packet.
        devices: the device keys that this link speaks for, 1 to 256.

    Raises:
        FormatError: not a welcome, or a key of small order.
        SignatureError: the relay of this card did not sign it.
    """
    keys, chain = open_welcome(pending, first_key, packet)
    proofs = [DeviceProof(device.public, sign_proof(device, keys.transcript)) for device in devices]
    return keys, chain, prove_packet(keys, proofs)


def accept_prove(pending: PendingLink, packet: bytes) -> tuple[bytes, ...]:
    """The device keys for which a prove packet speaks, all verified.

    Raises:
        FormatError: does not open under the link's key, is not well formed, or names a device twice.
        SignatureError: a device did not sign the transcript.
    """
    keys = pending.keys
    try:
        plain = crypto_secretbox_open(packet[1 + LINK_ID_BYTES :], _nonce(0), keys.up_key)
    except (CryptoError, ValueError):
        raise FormatError("prove", "does not open under the link's key") from None
    proofs: tuple[DeviceProof, ...] = decode(_Proofs, plain, "prove")
    device_keys = tuple(proof.device_key for proof in proofs)
    if len(set(device_keys)) != len(device_keys):
        raise FormatError("prove", "names a device twice")
    for proof in proofs:
        verify_proof(proof.device_key, keys.transcript, proof.signature)
    return device_keys


class FrameSealer:
    """Seals frames in one direction of a link, numbered from 1."""

    __slots__ = ("_head", "_key", "counter")

    def __init__(self, link_id: bytes, key: bytes) -> None:
        self._head = bytes((FRAME,)) + link_id
        self._key = key
        self.counter = 0

    def __repr__(self) -> str:
        return f"FrameSealer(counter={self.counter}, key=<redacted>)"

    def seal(self, plain: bytes) -> bytes:
        """The packet of a frame's commands.

        Raises:
            FormatError: larger than a frame may be; nothing was numbered then.
        """
        if len(plain) > FRAME_BYTES_MAX - FRAME_OVERHEAD_BYTES:
            raise FormatError("frame", f"has {len(plain)} bytes", FRAME_BYTES_MAX - FRAME_OVERHEAD_BYTES)
        self.counter += 1
        counter = self.counter.to_bytes(COUNTER_BYTES, "big")
        return self._head + counter + crypto_secretbox(plain, counter + _NONCE_TAIL, self._key)


class FrameOpener:
    """Opens frames of one direction of a link; each counter at most once, in ascending order, with gaps allowed."""

    __slots__ = ("_key", "counter")

    def __init__(self, key: bytes) -> None:
        self._key = key
        self.counter = 0

    def __repr__(self) -> str:
        return f"FrameOpener(counter={self.counter}, key=<redacted>)"

    def open(self, packet: bytes) -> bytes | None:
        """The commands' bytes, or None for a frame to drop without an answer (replayed, late, forged or cut short).

        The counter moves only after the tag has verified, so that a forged frame cannot shut out true ones.
        """
        counter_bytes = packet[1 + LINK_ID_BYTES : _FRAME_HEADER_BYTES]
        counter = int.from_bytes(counter_bytes, "big")
        if len(counter_bytes) != COUNTER_BYTES or counter <= self.counter:
            return None
        try:
            plain = crypto_secretbox_open(packet[_FRAME_HEADER_BYTES:], counter_bytes + _NONCE_TAIL, self._key)
        except (CryptoError, ValueError):
            return None
        self.counter = counter
        return plain


def _nonce(counter: int) -> bytes:
    return counter.to_bytes(COUNTER_BYTES, "big") + _NONCE_TAIL


def _transcript(relay_id: bytes, hello: bytes, core: bytes) -> bytes:
    return sha256(
        label("link") + relay_id + len(hello).to_bytes(4, "big") + hello + len(core).to_bytes(4, "big") + core
    ).digest()
