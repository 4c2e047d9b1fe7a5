"""Link cryptography of the right size only, for `crypto = "sized"`: what the relay does around it stays real.

    with standing_in():        inside, relay/core/links.py does handshakes and frames with what is here

A frame has the length, the counter and the place of the tag that a real one has; its plaintext is not encrypted, and
its tag is a checksum, which everybody could compute. So a packet that the network spoilt, repeated or
mixed up is dropped as a real one is, and an attacker is not modelled: attacks belong to `crypto = "real"`.

What is stored is signed for real, lists, prekeys and commits: the verifier checks them. A signature that was made in
this very process is known to verify, and not verified once more by whoever gets it; any other one is.
"""

import contextlib
from collections.abc import Callable, Iterator
from hashlib import sha256
from typing import Final
from zlib import crc32

import relay.core.links
import wire.identity
import wire.prekeys
import wire.receipt
from sim.world import replaced
from wire.codec import decode, encode
from wire.errors import FormatError
from wire.hashing import label
from wire.limits import FRAME_BYTES_MAX, KEY_BYTES, PROTOCOL_VERSION, SIGNATURE_BYTES
from wire.link import (
    FRAME,
    FRAME_OVERHEAD_BYTES,
    HELLO,
    PROVE,
    WELCOME,
    DeviceProof,
    Hello,
    LinkKeys,
    PendingLink,
    Welcome,
    WelcomeCore,
)
from wire.rotation import Rotation
from wire.signing import SigningKey, verify

__all__ = ["SizedOpener", "SizedSealer", "hello_packet", "link_id_of_welcome", "prove_packet", "standing_in"]

_TAG_BYTES: Final = 16
_FRAME_BYTE: Final = bytes((FRAME,))
_HEAD_BYTES: Final = 17
_NO_SIGNATURE: Final = bytes(SIGNATURE_BYTES)
_NO_KEY: Final = bytes(KEY_BYTES)


def _tag(head: bytes, plain: bytes) -> bytes:
    """The checksum of a packet's head, kind, link and counter, and of what follows."""
    return crc32(plain, crc32(head)).to_bytes(4, "big") * 4


class SizedSealer:
    """wire.link.FrameSealer's shape."""

    __slots__ = ("_head", "counter")

    def __init__(self, link_id: bytes, key: bytes) -> None:
        self._head = _FRAME_BYTE + link_id
        self.counter = 0

    def seal(self, plain: bytes) -> bytes:
        """A packet of the length that a sealed one has.

        Raises:
            FormatError: larger than a frame may be.
        """
        if len(plain) > FRAME_BYTES_MAX - FRAME_OVERHEAD_BYTES:
            raise FormatError("frame", f"has {len(plain)} bytes", FRAME_BYTES_MAX - FRAME_OVERHEAD_BYTES)
        self.counter += 1
        head = self._head + self.counter.to_bytes(8, "big")
        return head + _tag(head, plain) + plain


class SizedOpener:
    """wire.link.FrameOpener's shape."""

    __slots__ = ("counter",)

    def __init__(self, key: bytes) -> None:
        self.counter = 0

    def open(self, packet: bytes) -> bytes | None:
        """The plaintext, or None for a frame that is replayed, late or spoilt."""
        counter = int.from_bytes(packet[9:_HEAD_BYTES], "big")
        plain = packet[FRAME_OVERHEAD_BYTES:]
        if counter <= self.counter or packet[_HEAD_BYTES:FRAME_OVERHEAD_BYTES] != _tag(packet[:_HEAD_BYTES], plain):
            return None
        self.counter = counter
        return plain


def _transcript(hello: bytes, core: bytes) -> bytes:
    return sha256(label("link") + hello + core).digest()


def hello_packet(relay_id: bytes, entropy: Callable[[int], bytes]) -> bytes:
    """A device's hello: random bytes for its ephemeral key."""
    return bytes((HELLO,)) + encode(Hello(PROTOCOL_VERSION, relay_id, entropy(KEY_BYTES), entropy(16)))


def link_id_of_welcome(hello: bytes, welcome: bytes) -> bytes:
    """The link that a welcome to that hello begins.

    Raises:
        FormatError: it is no welcome.
    """
    return _transcript(hello[1:], decode(Welcome, welcome[1:], "welcome").core)[:8]


def prove_packet(link_id: bytes, device_key: bytes) -> bytes:
    """A device's prove."""
    plain = encode([DeviceProof(device_key, _NO_SIGNATURE)])
    head = bytes((PROVE,)) + link_id
    return head + _tag(head, plain) + plain


def _answer_hello(
    relay_id: bytes,
    signing_key: SigningKey,
    rotations: tuple[Rotation, ...],
    packet: bytes,
    entropy: Callable[[int], bytes],
) -> tuple[PendingLink, bytes]:
    hello = decode(Hello, packet[1:], "hello")
    if hello.relay_id != relay_id:
        raise FormatError("hello", "is to another relay")
    core = encode(WelcomeCore(PROTOCOL_VERSION, entropy(KEY_BYTES), entropy(16)))
    keys = LinkKeys(_transcript(packet[1:], core), _NO_KEY, _NO_KEY)
    return PendingLink(keys), bytes((WELCOME,)) + encode(Welcome(core, _NO_SIGNATURE, rotations))


def _accept_prove(pending: PendingLink, packet: bytes) -> tuple[bytes, ...]:
    plain = packet[9 + _TAG_BYTES :]
    if packet[1:9] != pending.keys.link_id or packet[9 : 9 + _TAG_BYTES] != _tag(packet[:9], plain):
        raise FormatError("prove", "is spoilt")
    proofs: list[DeviceProof] = decode(list[DeviceProof], plain, "prove")
    return tuple(proof.device_key for proof in proofs)


class _KnownSignatures:
    """Signatures that were made here: those of lists, and others until somebody verifies them."""

    def __init__(self) -> None:
        self._made: set[tuple[bytes, str, bytes, bytes]] = set()
        self._sign, self._verify = SigningKey.sign, verify

    def signer(self) -> Callable[[SigningKey, str, bytes], bytes]:
        """What takes the place of `SigningKey.sign`."""
        made, real = self._made, self._sign

        def sign(key: SigningKey, name: str, data: bytes) -> bytes:
            signature = real(key, name, data)
            made.add((key.public, name, data, signature))
            return signature

        return sign

    def verify(self, public: bytes, name: str, data: bytes, signature: bytes) -> None:
        """What takes the place of `wire.signing.verify`.

        Raises:
            SignatureError: as there.
        """
        known = (public, name, data, signature)
        if known in self._made:
            # A commit's header or a prekey is looked at once; a list first by the relay, then by whoever writes.
            if name != "device-list":
                self._made.discard(known)
        else:
            self._verify(public, name, data, signature)


@contextlib.contextmanager
def standing_in() -> Iterator[None]:
    """Let the relay's links use what is here, until the block ends."""
    known = _KnownSignatures()
    with contextlib.ExitStack() as stack:
        stack.enter_context(replaced(relay.core.links, "answer_hello", _answer_hello))
        stack.enter_context(replaced(relay.core.links, "accept_prove", _accept_prove))
        stack.enter_context(replaced(relay.core.links, "FrameOpener", SizedOpener))
        stack.enter_context(replaced(relay.core.links, "FrameSealer", SizedSealer))
        stack.enter_context(replaced(SigningKey, "sign", known.signer()))
        for module in (wire.identity, wire.prekeys, wire.receipt):
            stack.enter_context(replaced(module, "verify", known.verify))
        yield
