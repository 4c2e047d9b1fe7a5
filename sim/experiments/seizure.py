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
both directions; and each sending step is tried as the device would take it. Its twins: a chain that stands still, which
opens the past, and a client whose ratchet key never changes, which never heals.
"""

import asyncio
import contextlib
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
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
    told("the protocol", 0, 3)
    honest = asyncio.run(_seized(folder / "honest", rounds))
    told("its twin: a chain that stands still", 1, 3)
    with standing_chain():
        standing = asyncio.run(_seized(folder / "standing", rounds))
    told("its twin: a ratchet key that never changes", 2, 3)
    with constant_ratchet_key():
        constant = asyncio.run(_seized(folder / "constant", rounds))
    told("done", 3, 3)
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


# ---- the story


async def _seized(folder: Path, rounds: int) -> Outcome:
    async with contextlib.AsyncExitStack() as stack:
        kept = stack.enter_context(recording())
        world = await stack.enter_async_context(World.start(folder))
        mailboxes = kept.mailboxes(world)
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
        self._commitments: set[bytes] = set()
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

    @staticmethod
    def _step(session: Session) -> None:
        """The sending step after a turn. Its private key is drawn anew: the device's own draw was another."""
        if not session.ratchet.chain_send:
            session.ratchet._take_sending_step()

    def _learn(self, session: Session) -> None:
        """The commitments of every message key that follows from the session's chain keys, and those that it kept."""
        ratchet = session.ratchet
        message = [skipped.message_key for skipped in ratchet.skipped.values()]
        for chain in (ratchet.chain_send, ratchet.chain_receive):
            if chain and chain not in self._stepped:
                self._stepped.add(chain)
                message += _stepped(chain)
        self._commitments.update(message_keys(key)[1] for key in message)


def _stepped(chain: bytes) -> list[bytes]:
    found = []
    for _ in range(_STEPS_MAX):
        chain, key = keys.chain.chain_step(chain)
        found.append(key)
    return found
