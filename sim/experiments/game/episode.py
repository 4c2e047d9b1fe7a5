"""One episode: a world is drawn by a fair coin, people write in it, and the adversary gets what it may see of it.

    seen = play(stage, suite, Chance(seed, "held out", 17), View.DISCLOSURE)

The episode plays the pattern (contents.py) on the relay (stage.py) with bodies of a suite (suites.py). Ana's mail goes
to both of Bob's devices, in one submit and in the order of his device list; his tablet is off, so what waits for it is
at rest when the relay is disclosed. Phones acknowledge with the true tokens, when the pattern says so.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from client.content import with_token
from keys.identity import DeviceKeys
from relay.core.events import CommitRow, TombstoneRow
from sim.experiments.game.chance import Chance
from sim.experiments.game.contents import ANA, BOB, Composer, Message, draw_pattern
from sim.experiments.game.plan import View
from sim.experiments.game.stage import START_MS, Frame, LogLine, Stage, VirtualRelay
from sim.experiments.game.suites import Lane, Suite, is_mail
from wire.commands import Ack, Submit
from wire.envelope import Envelope, envelope_id_of

__all__ = ["Row", "Seen", "play"]

_HOUR_S: Final = 3_600
_EXPIRY_S: Final = 7 * 24 * _HOUR_S
_AFTER_MS: Final = 10_000
_LINKS_MS: Final = 1_000


@dataclass(frozen=True, slots=True)
class Row:
    """One envelope as the adversary has it: from the store, or from the frame that brought it.

    `place` is its leaf in its commit, or its position in its submit.
    """

    mailbox: int
    envelope_id: bytes
    expiry: int
    group: int
    place: int
    body: bytes


@dataclass(frozen=True, slots=True)
class Seen:
    """What the adversary is given. `frames` are of the live view only; commits, tombstones and log of the disclosure.

    Mailboxes are numbered in the order of the store.
    """

    rows: tuple[Row, ...]
    tombstones: tuple[TombstoneRow, ...] = ()
    commits: tuple[CommitRow, ...] = ()
    log: tuple[LogLine, ...] = ()
    frames: tuple[Frame, ...] = ()


Event = tuple[int, int, Callable[[], None]]


class _Episode:
    def __init__(self, stage: Stage, suite: Suite, chance: Chance) -> None:
        self._stage = stage
        self._suite = suite
        self._chance = chance
        pattern = draw_pattern(chance)
        self._composer = Composer(chance, suite.slack_bytes)
        ana, bob, tablet = stage.ana, stage.bob, stage.tablet
        self._routes: dict[str, tuple[DeviceKeys, tuple[DeviceKeys, ...]]] = {
            ANA: (ana, (bob, tablet)),
            BOB: (bob, (ana,)),
        }
        self._lanes = {
            (one.public, other.public): Lane(chance, one.public, other.public)
            for one, other in ((ana, bob), (ana, tablet), (bob, ana))
        }
        self.relay = VirtualRelay(stage, chance)
        for keys in (ana, bob):
            self.relay.link(keys)
            self.relay.subscribe(keys)
        self._events: list[Event] = []
        for message in pattern:
            self._prepare(message)

    def run(self) -> None:
        """Let everything happen in its order."""
        for at_ms, _order, happen in sorted(self._events, key=lambda event: event[:2]):
            self.relay.advance(at_ms)
            happen()
        self.relay.advance(self.relay.now_ms + _AFTER_MS)

    def _prepare(self, message: Message) -> None:
        chance, suite = self._chance, self._suite
        sender, recipients = self._routes[message.sender]
        at_ms = START_MS + _LINKS_MS + message.at_ms
        message_id = chance(16)
        expiry_s = -(-(at_ms // 1_000 + _EXPIRY_S) // _HOUR_S) * _HOUR_S
        content = self._composer.compose(message, chance(16), message_id, at_ms)
        mail = is_mail(content)
        if mail and suite.mail_waits:
            at_ms = -(-at_ms // 1_000) * 1_000
        if suite.mail_tablet_first and mail:
            recipients = recipients[::-1]
        envelopes = []
        tokens = {}
        for recipient in recipients:
            token = tokens[recipient.mailbox] = chance(16)
            envelope_id = envelope_id_of(token)
            lane = self._lanes[sender.public, recipient.public]
            body = suite.seal(lane, with_token(content, token), envelope_id)
            envelopes.append(Envelope(recipient.mailbox, envelope_id, expiry_s, body))
        self._submit_at(at_ms, sender, message.recipient, tuple(envelopes))
        if message.ack_ms is not None:
            phone = self._routes[message.recipient][0]
            self._ack_at(at_ms + message.ack_ms, phone, tokens[phone.mailbox])

    def _submit_at(self, at_ms: int, sender: DeviceKeys, account: str, envelopes: tuple[Envelope, ...]) -> None:
        relay, hashed = self.relay, self._stage.list_hashes[account]
        command = Submit(relay.next_ref(), account, hashed, envelopes)
        self._events.append((at_ms, len(self._events), lambda: relay.say(sender, command)))

    def _ack_at(self, at_ms: int, phone: DeviceKeys, token: bytes) -> None:
        command = Ack(self.relay.next_ref(), phone.mailbox, (token,))
        self._events.append((at_ms, len(self._events), lambda: self.relay.say(phone, command)))


def play(stage: Stage, suite: Suite, chance: Chance, view: View) -> Seen:
    """Play one episode in the world of `chance.world`, and give what the adversary sees of it.

    Args:
        stage: who is enrolled; unchanged afterwards.
        suite: how bodies are made.
        chance: all randomness of the episode.
        view: what is seen.
    """
    episode = _Episode(stage, suite, chance)
    episode.run()
    relay = episode.relay
    mailboxes = {row.mailbox: seq for seq, row in relay.store.mailboxes.items()}
    if view is View.LIVE:
        submitted = [
            Row(mailboxes[item.mailbox], item.envelope_id, item.expiry, group, place, item.body)
            for group, frame in enumerate(relay.frames)
            for command in frame.commands
            if isinstance(command, Submit)
            for place, item in enumerate(command.envelopes)
        ]
        return Seen(tuple(submitted), frames=tuple(relay.frames))
    store = relay.store
    rows = tuple(
        Row(mailboxes[row.mailbox], row.envelope_id, row.expiry, row.commit_index, row.leaf, row.body)
        for row in store.envelopes.values()
    )
    return Seen(rows, tuple(store.tombstones.values()), tuple(store.commits.values()), tuple(relay.log))
