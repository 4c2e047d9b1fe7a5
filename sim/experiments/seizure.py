"""C3: who records all traffic, then seizes a device with its passphrase, opens nothing of before and soon nothing more.

Ana and Bilal write to each other. Bilal's device is seized at a moment when one message to it is still on its way: its
home is copied, with the vault and the passphrase. Then both go on, with the device back in Bilal's hand, and the
adversary keeps recording. What is counted: the bodies that open with all that the copy holds and that follows from it:

    before the seizure, acknowledged      none must open
    under way at the seizure              opens: the attack works
    until the next round trip             may open: the adversary follows the ratchet as the device would
    after that                            none must open

The adversary is the client's own code on the copy: every session decrypts whatever it can, in order; every chain key
is stepped on and matched with the key commitments of all bodies, which finds any message key that follows from it, in
both directions; each 32 bytes of a session's row, whatever the field, are tried as message and as chain key; and each
sending step is tried as the device would take it, with each X25519 private key that was seized as well as with a new
one. Its twins: a chain that stands still, which opens the past; a client whose ratchet key is the same for all, and one
that takes its identity key for it, which never heal.
"""

import asyncio
import contextlib
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import keys.chain
import keys.ratchet
from client.device import Device
from keys.agreement import Entropy, draw
from keys.identity import DeviceKeys
from keys.message import message_keys
from keys.prekeys import PrekeyRing
from keys.session import Session
from sim.experiments.recorded import Recorded, recording
from sim.experiments.result import Control, Figure, Result
from sim.world import PASSPHRASE, World, replaced
from wire.errors import BlindpostError
from wire.limits import KEY_BYTES

__all__ = ["Adversary", "Outcome", "run"]

_PEER: Final = "ana@acme.example"
_VICTIM: Final = "bilal@acme.example"
_STEPS_MAX: Final = 1_000
_WINDOW_STEPS: Final = 8
_COMMITMENT: Final = slice(16, 48)
_FIXED: Final = b"\x42" * KEY_BYTES
_WAIT_S: Final = 20.0
_NOW_S: Final = 0
"""The adversary's clock: at this time no key that was kept has expired."""


@dataclass(frozen=True)
class Outcome:
    """What the adversary opened, of the bodies between the two, by when they were written.

    Attributes:
        before: acknowledged before the seizure.
        before_opened: of those, opened.
        under_way: stored and not fetched when the device was seized.
        under_way_opened: of those, opened.
        healing_opened: opened of those until the end of the first round trip after it.
        after: written later.
        after_opened: of those, opened.
    """

    before: int
    before_opened: int
    under_way: int
    under_way_opened: int
    healing_opened: int
    after: int
    after_opened: int


def run(folder: Path, rounds: int = 4, progress: Callable[[str, int, int], None] | None = None) -> Result:
    """Run the experiment and its twins.

    Args:
        folder: an empty one, for the homes of the worlds.
        rounds: how often both write before the seizure, and again after the device has healed.
        progress: called with the title of each part, its position and the count.
    """
    told = progress or (lambda title, done, total: None)
    told("the protocol", 0, 4)
    honest = asyncio.run(_seized(folder / "honest", rounds))
    told("its twin: a chain that stands still", 1, 4)
    with standing_chain():
        standing = asyncio.run(_seized(folder / "standing", rounds))
    told("its twin: a ratchet key that never changes", 2, 4)
    with constant_ratchet_key():
        constant = asyncio.run(_seized(folder / "constant", rounds))
    told("its twin: a device whose identity key is its ratchet key", 3, 4)
    identities: dict[bytes, bytes] = {}
    with identity_as_ratchet_key(identities):
        reused = asyncio.run(_seized(folder / "reused", rounds, identities))
    told("done", 4, 4)
    return Result(
        experiment="seizure",
        claim="C3",
        statement=(
            "Of all recorded ciphertext, a seized device with its passphrase opens none that was acknowledged before, "
            "and none after the next round trip."
        ),
        held=not honest.before_opened and not honest.after_opened,
        parameters={"rounds": rounds},
        figures=(
            Figure("texts before the seizure, acknowledged", honest.before),
            Figure("bodies of before that the adversary opens", honest.before_opened),
            Figure("texts under way at the seizure", honest.under_way),
            Figure("texts under way that the adversary opens", honest.under_way_opened),
            Figure("texts after the next round trip", honest.after),
            Figure("bodies after the next round trip that the adversary opens", honest.after_opened),
        ),
        controls=(
            Control(
                "attack-works",
                "none: the message that was under way is in reach of whoever has the device",
                caught=honest.under_way_opened == honest.under_way > 0,
                how=f"{honest.under_way_opened} of {honest.under_way} opened",
            ),
            Control(
                "standing-chain",
                "a chain key that does not move with each message",
                caught=standing.before_opened > 0,
                how="bodies of before the seizure open",
            ),
            Control(
                "no-ratchet-step",
                "a client whose ratchet key is always the same",
                caught=constant.after_opened >= constant.after > 0,
                how="every body after the round trip opens",
            ),
            Control(
                "identity-as-ratchet-key",
                "a client that takes every step with its identity key, which stays on the device",
                caught=reused.after_opened >= reused.after > 0,
                how="every body after the round trip opens: the private key was seized",
            ),
        ),
        limits=(
            "mail that the person keeps on the device: it is there to be read",
            "first messages without a one-time prekey, until signed and last-resort prekeys are erased (7 + 7 days)",
            "keys of messages that were skipped, kept at most 7 days",
            "an adversary that speaks in the device's place instead of listening: the safety number and the relay's "
            "newest link are what notices it",
            "what a file system or flash keeps below SQLite: `prove erased` looks at the bytes of the files",
        ),
        evidence=_evidence(honest),
    )


def _evidence(outcome: Outcome) -> tuple[str, ...]:
    found = []
    if outcome.before_opened:
        found.append(f"{outcome.before_opened} bodies of before the seizure open")
    if outcome.after_opened:
        found.append(f"{outcome.after_opened} bodies of after the round trip open")
    return tuple(found)


# ---- the twins


@contextlib.contextmanager
def standing_chain() -> Iterator[None]:
    """Chain keys stay; message keys differ by the ratchet's turn only."""
    step = keys.chain.chain_step

    def standing(chain: bytes) -> tuple[bytes, bytes]:
        return chain, step(chain)[1]

    with replaced(keys.chain, "chain_step", standing), replaced(keys.ratchet, "chain_step", standing):
        yield


@contextlib.contextmanager
def constant_ratchet_key() -> Iterator[None]:
    """Every ratchet key is the one that sits in the program, which whoever has the device has as well."""

    def constant(entropy: Entropy, size: int) -> bytes:
        return _FIXED if size == KEY_BYTES else draw(entropy, size)

    with replaced(keys.ratchet, "draw", constant):
        yield


@contextlib.contextmanager
def identity_as_ratchet_key(identities: dict[bytes, bytes]) -> Iterator[None]:
    """Every sending step is taken with the device's identity key.

    Args:
        identities: by device key, once the story has filled it in.
    """
    encrypt = Session.encrypt

    def reusing(session: Session, content: bytes, envelope_id: bytes) -> bytes:
        ratchet, own = session.ratchet, session.own_device
        entropy = ratchet._entropy
        ratchet._entropy = lambda size: identities[own] if size == KEY_BYTES and own in identities else entropy(size)
        try:
            return encrypt(session, content, envelope_id)
        finally:
            ratchet._entropy = entropy

    with replaced(Session, "encrypt", reusing):
        yield


# ---- the story


async def _seized(folder: Path, rounds: int, identities: dict[bytes, bytes] | None = None) -> Outcome:
    async with contextlib.AsyncExitStack() as stack:
        kept = stack.enter_context(recording())
        world = await stack.enter_async_context(World.start(folder))
        mailboxes = kept.mailboxes(world)
        if identities is not None:
            own = [device.state.keys for device in world.devices.values()]
            identities.update((each.public, each.secrets()[1][1]) for each in own)
        for number in range(rounds):
            await _both(world, f"before, {number}")
        await world.switch_off(_VICTIM)
        before = len(kept.bodies)
        acknowledged = set(kept.acknowledged)
        assert acknowledged == {recorded.envelope_id for recorded in kept.bodies}, "all of before is acknowledged"
        await world.say(_PEER, (_VICTIM,), "under way")
        under_way = len(kept.bodies)
        shutil.copytree(folder / "bilal", folder / "seized")
        await world.switch_on(_VICTIM)
        await _both(world, "round trip")
        await _both(world, "round trip, closed")
        healed = len(kept.bodies)
        for number in range(rounds):
            await _both(world, f"after, {number}")
        bodies = list(kept.bodies)
    adversary = Adversary(folder / "seized", {box for box, who in mailboxes.items() if who == _VICTIM})
    opened = adversary.attack([recorded for recorded in bodies if mailboxes[recorded.mailbox] in {_PEER, _VICTIM}])
    places = [at for at, recorded in enumerate(bodies) if recorded.envelope_id in opened]
    return Outcome(
        before=2 * rounds,
        before_opened=sum(at < before for at in places),
        under_way=under_way - before,
        under_way_opened=sum(before <= at < under_way for at in places),
        healing_opened=sum(under_way <= at < healed for at in places),
        after=2 * rounds,
        after_opened=sum(at >= healed for at in places),
    )


async def _both(world: World, text: str) -> None:
    """Each writes to the other, and both take what came."""
    for who, other in ((_PEER, _VICTIM), (_VICTIM, _PEER)):
        await world.say(who, (other,), f"{text}: {who}")
        messages = await world.devices[other].receive(_WAIT_S)
        assert any(message.payload == f"{text}: {who}".encode() for message in messages)
        await asyncio.gather(*(world.devices[each].idle(_WAIT_S) for each in (who, other)))


# ---- the adversary


class Adversary:
    """Whoever has the copy of the home, and its passphrase.

    Args:
        home: the copy.
        mailboxes: the device's own.
    """

    def __init__(self, home: Path, mailboxes: set[bytes]) -> None:
        self._mailboxes = mailboxes
        device = Device.open(home, PASSPHRASE)
        try:
            state = device.state
            self._own: DeviceKeys = state.keys
            assert state.ring is not None
            self._ring = PrekeyRing.from_bytes(state.ring.to_bytes(), state.keys)
            self._sessions = [Session.from_bytes(each.to_bytes()) for each in state.sessions.all_sessions()]
        finally:
            device.close()
        self._privates = {self._own.secrets()[1][1]}
        self._privates |= {session.ratchet.ratchet_private for session in self._sessions} - {b""}
        self._privates |= {key for name, key in self._ring.secrets() if name == "signed prekey"}
        self._commitments: set[bytes] = set()
        self._searched: set[bytes] = set()
        self._stepped: set[bytes] = set()

    def attack(self, bodies: list[Recorded]) -> set[bytes]:
        """The ids of the envelopes that open, with what is known in the end: it looks again until nothing is new."""
        opened: set[bytes] = set()
        while True:
            known = len(opened), len(self._sessions)
            for recorded in bodies:
                if recorded.envelope_id not in opened and self._opens(recorded):
                    opened.add(recorded.envelope_id)
            if known == (len(opened), len(self._sessions)):
                return opened

    def _opens(self, recorded: Recorded) -> bool:
        for session in self._sessions:
            self._learn(session)
        received = self._receive(recorded)
        return received or recorded.body[_COMMITMENT] in self._commitments

    def _receive(self, recorded: Recorded) -> bool:
        """Decrypt as the device would; and go on as the device would, with its next sending step."""
        if recorded.mailbox not in self._mailboxes:
            return False
        for session in self._sessions:
            with contextlib.suppress(BlindpostError):
                session.decrypt(recorded.body, recorded.envelope_id, _NOW_S)
                self._step(session)
                return True
        with contextlib.suppress(BlindpostError):
            accepted = Session.accept(
                self._own,
                self._ring,
                recorded.body,
                recorded.envelope_id,
                _NOW_S,
                check_sender=lambda inbound: None,
            )
            self._step(accepted.session)
            self._sessions.append(accepted.session)
            return True
        return False

    def _step(self, session: Session) -> None:
        """The sending step after a turn: with each private key that was seized, should the device use one.

        Drawn anew it leads nowhere, as the device's own draw was another, but what it receives can still be read.
        """
        if session.ratchet.chain_send:
            return
        state = session.to_bytes()
        for private in self._privates:
            again = Session.from_bytes(state)
            again.ratchet._entropy = partial(_same, private)
            again.ratchet._take_sending_step()
            self._sessions.append(again)
        session.ratchet._take_sending_step()

    def _learn(self, session: Session) -> None:
        """The commitments of every message key that follows from the session's chain keys, and those that it kept."""
        ratchet = session.ratchet
        message = [skipped.message_key for skipped in ratchet.skipped.values()]
        for chain in (ratchet.chain_send, ratchet.chain_receive):
            if chain and chain not in self._stepped:
                self._stepped.add(chain)
                message += _stepped(chain)
        state = session.to_bytes()
        if state not in self._searched:
            self._searched.add(state)
            message += _windows(state)
        self._commitments.update(message_keys(key)[1] for key in message)


def _same(private: bytes, size: int) -> bytes:
    return private


def _windows(state: bytes) -> list[bytes]:
    """Each 32 bytes as a message key, and those of a few steps as a chain key: whatever field a client left one in."""
    found = []
    for at in range(len(state) - KEY_BYTES + 1):
        window = state[at : at + KEY_BYTES]
        found += [window, *_stepped(window, _WINDOW_STEPS)]
    return found


def _stepped(chain: bytes, steps: int = _STEPS_MAX) -> list[bytes]:
    found = []
    for _ in range(steps):
        chain, key = keys.chain.chain_step(chain)
        found.append(key)
    return found
