"""C4: an adversary who recorded everything and has every X25519 private key that ever was opens nothing.

A quantum computer that breaks X25519 turns each public key into its private one. So here each private half that any
device makes is simply given to the adversary: identity keys, signed and one-time prekeys, ephemeral keys, ratchet keys,
also those that were erased. What it lacks is the ML-KEM-768 secret of each handshake (protocol.md section 4.1).

    result = run(Path(folder))

The adversary is the protocol's own code, run in the place of both sides: it opens the first message of each session as
its recipient would, with a secret of its own in the place of ML-KEM's, and follows the ratchet in both directions by
looking up the private half of each ratchet key that a header shows. It does not need the sealed sender for that: whom
the directory names it tries as the sender, one after the other. What opens of the seals is counted by itself.

The twins are clients whose handshake leaves ML-KEM's secret out: everywhere (X25519 only), of the content and not of
the seal, and of the seal alone. There the same adversary reads all, all, and who sends.
"""

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import keys.handshake
import keys.identity
import keys.prekeys
import keys.ratchet
from keys.agreement import diffie_hellman, encapsulate, x_public
from keys.handshake import Inbound, Secrets
from keys.identity import DeviceKeys
from keys.message import HEADER_END
from keys.prekeys import PrekeyRing
from keys.ratchet import Ratchet
from keys.session import Session, ephemeral_of
from sim.experiments.recorded import Recorded, Recording, recording
from sim.experiments.result import Control, Figure, Result
from sim.world import PEOPLE, World, replaced
from wire.errors import BlindpostError
from wire.identity import DeviceList, SignedList
from wire.limits import KEY_BYTES, ML_KEM_768_CIPHERTEXT_BYTES

__all__ = ["Harvest", "run"]

_GUESS: Final = bytes(32)
"""What the adversary puts where ML-KEM's secret belongs; no guess is better than another against the real thing."""
_NOW_S: Final = 2_000_000_000
_ROUNDS: Final = 3


@dataclass(repr=False)
class Harvest:
    """What the adversary has.

    Attributes:
        recording: every body.
        privates: X25519 private keys by their public half.
        rings: by device key, copies of its prekeys from before each use; only their X25519 halves are used.
        devices: by mailbox, the keys of the device; only the X25519 half is used.
    """

    recording: Recording
    privates: dict[bytes, bytes] = field(default_factory=dict)
    rings: dict[bytes, list[bytes]] = field(default_factory=dict)
    devices: dict[bytes, DeviceKeys] = field(default_factory=dict)
    seals_opened: int = 0
    """Sealed senders that the attack opened."""

    def __repr__(self) -> str:
        return f"Harvest(bodies={len(self.recording.bodies)}, private keys=<{len(self.privates)}, redacted>)"


def run(folder: Path, rounds: int = _ROUNDS, progress: Callable[[str, int, int], None] | None = None) -> Result:
    """Run the experiment and its twin.

    Args:
        folder: an empty one, for the homes of both worlds.
        rounds: how often everybody writes to everybody.
        progress: called with the title of each part, its position and the count.
    """
    told = progress or (lambda title, done, total: None)
    told("the protocol", 0, 4)
    honest, texts = _harvested(folder / "honest", rounds)
    opened = attack(honest)
    told("its twin: X25519 only", 1, 4)
    with x25519_only():
        twin, twin_texts = _harvested(folder / "twin", rounds)
        twin_opened = attack(twin)
    told("its twin: ML-KEM's secret for the seal only", 2, 4)
    with seal_only():
        half, half_texts = _harvested(folder / "seal", rounds)
        half_opened = attack(half)
    told("its twin: ML-KEM's secret for the content only", 3, 4)
    with content_only():
        named, _ = _harvested(folder / "content", rounds)
        named_opened = attack(named)
    told("done", 4, 4)
    read = sum(text in b"".join(twin_opened) for text in twin_texts)
    half_read = sum(text in b"".join(half_opened) for text in half_texts)
    return Result(
        experiment="harvest",
        claim="C4",
        statement="Who recorded every body and has every X25519 private key that ever was opens none of them.",
        held=not opened and not honest.seals_opened,
        parameters={"rounds": rounds, "people": len(PEOPLE)},
        figures=(
            Figure("texts that were written", len(texts)),
            Figure("bodies opened", len(opened)),
            Figure("sealed senders opened", honest.seals_opened),
            Figure("first messages whose ephemeral private key the adversary lacks", _lacking(honest)),
        ),
        controls=(
            Control(
                "x25519-only",
                "a handshake that mixes in a constant in the place of ML-KEM's secret",
                caught=read == len(twin_texts),
                how=f"the same adversary reads {read} of {len(twin_texts)} texts",
            ),
            Control(
                "ml-kem-for-the-seal-only",
                "a handshake whose root key is made without ML-KEM's secret, while the sealed sender is made with it",
                caught=half_read == len(half_texts) and not half.seals_opened,
                how=f"without opening a seal it reads {half_read} of {len(half_texts)} texts",
            ),
            Control(
                "ml-kem-for-the-content-only",
                "a handshake whose sealed sender is made without ML-KEM's secret, while the root key is made with it",
                caught=named.seals_opened > 0 and not named_opened,
                how="it reads no text, and who sends",
            ),
        ),
        limits=(
            "that ML-KEM-768 and the symmetric primitives hold; that they were combined rightly is what the twin shows",
            "healing after a seizure is by X25519 alone: with a session's state, breaking X25519 follows the session",
            "signatures are Ed25519: who breaks them while devices talk can put itself between them, later cannot",
        ),
        evidence=tuple(f"body {at} opened" for at in range(len(opened))),
    )


# ---- the world


def _harvested(folder: Path, rounds: int) -> tuple[Harvest, list[bytes]]:
    return asyncio.run(_talk(folder, rounds))


async def _talk(folder: Path, rounds: int) -> tuple[Harvest, list[bytes]]:
    texts: list[bytes] = []
    with recording() as kept, _privates_kept() as privates, _rings_kept() as rings:
        async with World.start(folder) as world:
            harvest = Harvest(kept, privates, rings)
            for device in world.devices.values():
                harvest.devices[device.state.keys.entry.mailbox] = device.state.keys
            for number in range(rounds):
                for who in PEOPLE:
                    text = f"round {number}: what {who} thinks is nobody's business"
                    texts.append(text.encode())
                    await world.say(who, [other for other in PEOPLE if other != who], text)
                await asyncio.gather(*(device.idle(20.0) for device in world.devices.values()))
    return harvest, texts


@contextlib.contextmanager
def _privates_kept() -> Iterator[dict[bytes, bytes]]:
    """Every private key whose public half is computed anywhere."""
    kept: dict[bytes, bytes] = {}
    with contextlib.ExitStack() as stack:
        for module in (keys.handshake, keys.identity, keys.prekeys, keys.ratchet):
            real = module.x_public

            def keeping(private: bytes, real: Callable[[bytes], bytes] = real) -> bytes:
                public = real(private)
                kept[public] = private
                return public

            stack.enter_context(replaced(module, "x_public", keeping))
        yield kept


@contextlib.contextmanager
def _rings_kept() -> Iterator[dict[bytes, list[bytes]]]:
    """A copy of each ring from before each of its halves is erased."""
    kept: dict[bytes, list[bytes]] = {}
    consume = PrekeyRing.consume

    def keeping(ring: PrekeyRing, *arguments: Any) -> None:
        kept.setdefault(ring._signing.public, []).append(ring.to_bytes())
        consume(ring, *arguments)

    with replaced(PrekeyRing, "consume", keeping):
        yield kept


@contextlib.contextmanager
def x25519_only() -> Iterator[None]:
    """The twin: both sides take a constant for ML-KEM's secret. The ciphertext still travels: lengths are the same."""
    initiate = Session.initiate.__func__  # type: ignore[attr-defined]

    def weak(public: bytes) -> tuple[bytes, bytes]:
        return _GUESS, encapsulate(public)[1]

    def weakly(cls: type[Session], *arguments: Any) -> Session:
        session: Session = initiate(cls, *arguments, kem=weak)
        return session

    with (
        replaced(Session, "initiate", classmethod(weakly)),
        replaced(keys.handshake, "decapsulate", lambda seed, ciphertext: _GUESS),
    ):
        yield


@contextlib.contextmanager
def seal_only() -> Iterator[None]:
    """A twin: the root key is derived from X25519's results alone."""
    real = keys.handshake.secrets_of

    def weak(dh1: bytes, shared: bytes, *rest: bytes) -> Secrets:
        return real(dh1, shared[:-KEY_BYTES], *rest)

    with replaced(keys.handshake, "secrets_of", weak):
        yield


@contextlib.contextmanager
def content_only() -> Iterator[None]:
    """A twin: the seal's key is derived from X25519's results alone."""
    real = keys.handshake.seal_key_of

    def weak(shared: bytes, context: bytes) -> bytes:
        return real(shared[:-KEY_BYTES], context)

    with replaced(keys.handshake, "seal_key_of", weak):
        yield


# ---- the adversary


def attack(harvest: Harvest) -> list[bytes]:
    """The content of every body that opens."""
    followed: list[_Followed] = []
    opened: list[bytes] = []
    with replaced(keys.handshake, "decapsulate", lambda seed, ciphertext: _GUESS):
        for recorded in harvest.recording.bodies:
            content = next((content for session in followed if (content := session.open(recorded)) is not None), None)
            if content is None:
                for session in _begun(harvest, recorded):
                    content = session.open(recorded)
                    if content is not None:
                        followed.append(session)
                        break
            if content is not None:
                opened.append(content)
    return opened


def _lacking(harvest: Harvest) -> int:
    """How many first messages there are for which not every private key was given to the adversary."""
    lacking = 0
    for recorded in harvest.recording.bodies:
        own = harvest.devices[recorded.mailbox]
        rings = [PrekeyRing.from_bytes(ring, own) for ring in harvest.rings.get(own.public, ())]
        is_first = any(recorded.body[:16] in ring for ring in rings)
        lacking += is_first and ephemeral_of(recorded.body) not in harvest.privates
    return lacking


def _begun(harvest: Harvest, recorded: Recorded) -> Iterator["_Followed"]:
    """The sessions that a first body may begin: with the sender of its seal, if that opens, and with everybody else."""
    own = harvest.devices[recorded.mailbox]
    for ring_bytes in harvest.rings.get(own.public, ()):
        ring = PrekeyRing.from_bytes(ring_bytes, own)
        with contextlib.suppress(BlindpostError):
            inbound = keys.handshake.open_inbound(own, ring, recorded.body)
            harvest.seals_opened += 1
            yield _Followed(harvest, own, inbound)
        for sender in harvest.devices.values():
            with contextlib.suppress(BlindpostError):
                yield _Followed(harvest, own, _supposed(own, ring, recorded.body, sender))


def _supposed(own: DeviceKeys, ring: PrekeyRing, body: bytes, sender: DeviceKeys) -> Inbound:
    """The handshake of a first body as that of a supposed sender: the seal, which says who it is, is not opened."""
    halves = ring.halves(body[:16])
    start = HEADER_END + KEY_BYTES
    ephemeral, ciphertext = ephemeral_of(body), body[start : start + ML_KEM_768_CIPHERTEXT_BYTES]
    shared = own.agree(ephemeral) + diffie_hellman(halves.signed_private, ephemeral)
    if halves.one_time_private:
        shared += diffie_hellman(halves.one_time_private, ephemeral)
    context = keys.handshake._own_context(own, halves, ephemeral, ciphertext)
    dh1 = diffie_hellman(halves.signed_private, sender.dh_public)
    offset = keys.handshake.first_offset(body)
    return Inbound(
        keys.handshake.secrets_of(dh1, shared + _GUESS, context, sender.dh_public, sender.public),
        body[:16],
        body[HEADER_END:offset],
        halves.signed_private,
        sender.public,
        # Whoever only supposes has no list of the sender's; what follows the session asks for none.
        DeviceList("", 0, b"", b"", ()),
        SignedList(b"", b""),
    )


class _Followed:
    """A session, read from both ends."""

    def __init__(self, harvest: Harvest, recipient: DeviceKeys, inbound: Inbound) -> None:
        self._privates = harvest.privates
        sender = next(device for device in harvest.devices.values() if device.public == inbound.sender_device)
        root, header, next_header = inbound.secrets
        signed_public = x_public(inbound.signed_private)
        as_sender = Ratchet.initiator(root, header, next_header, signed_public, _never)
        as_recipient = Session._of_inbound(recipient, inbound, _never)
        ephemeral = inbound.prefix[:32]
        self._ends = {
            recipient.entry.mailbox: as_recipient,
            sender.entry.mailbox: Session(sender.public, recipient.public, ephemeral, as_sender),
        }

    def open(self, recorded: Recorded) -> bytes | None:
        """The content of a body of this session; None if it is none, or does not open."""
        reader = self._ends.get(recorded.mailbox)
        if reader is None:
            return None
        remote = reader.ratchet.remote
        try:
            content = reader.decrypt(recorded.body, recorded.envelope_id, _NOW_S)
        except BlindpostError:
            return None
        if reader.ratchet.remote != remote:
            (other,) = (end for end in self._ends.values() if end is not reader)
            private = self._privates[reader.ratchet.remote]
            other.ratchet._entropy = lambda size: private
            other.ratchet._take_sending_step()
        return content


def _never(size: int) -> bytes:
    raise AssertionError("the adversary draws nothing: it looks private keys up")
