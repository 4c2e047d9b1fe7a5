"""A device of a sized run: real commands, real tokens and receipts, random bytes for bodies.

It does what client/ does, in the order of one queue of events: links, enrols, looks people up, submits to every device
on a list and to the person's other one, repeats what is not answered, follows a stale list if the pinned account key
signed it, verifies each receipt's path, shows a message once, acks with tokens.

Rules: nothing is kept here that a device could not know, but for `Sent`, which stands for what is inside a ciphertext
(token, message, how many parts): a body that is not the one that was sent opens nothing.
"""

from typing import TYPE_CHECKING, Final
from zlib import crc32

from sim.engine.ledger import Message, Sent
from sim.engine.standin import SizedOpener, SizedSealer, hello_packet, link_id_of_welcome, prove_packet
from wire.codec import decode, encode
from wire.commands import (
    Ack,
    Delivery,
    DeviceCommand,
    Directory,
    Done,
    Enrol,
    Linked,
    LookUp,
    PublishList,
    PublishPrekeys,
    Receipts,
    Refusal,
    RelayCommand,
    Submit,
    Subscribe,
    Withdraw,
    decode_relay_commands,
    encode_commands,
)
from wire.envelope import Envelope, envelope_id_of
from wire.errors import BlindpostError, RefusalCode
from wire.identity import SignedList
from wire.limits import COMMANDS_PER_FRAME_MAX, FRAME_BYTES_MAX, TOKENS_PER_ACK_MAX
from wire.link import FRAME, FRAME_OVERHEAD_BYTES, UNKNOWN_LINK, WELCOME
from wire.receipt import Receipt, receipt_of

if TYPE_CHECKING:
    from sim.engine.people import DeviceKeys, ListView
    from sim.engine.town import Town

__all__ = ["Handset", "Job"]

_AGAIN_MS: Final = 2_000
_AGAIN_MAX_MS: Final = 60_000
_CREDIT: Final = 64
_ROOM_BYTES: Final = FRAME_BYTES_MAX - FRAME_OVERHEAD_BYTES - 64
_SUBMIT_BYTES_MAX: Final = 240_000
"""Bodies of one submit, as client/submits.py has it: a frame holds no more."""
_UNKNOWN_AGAIN_MS: Final = 60_000


class Job:
    """One part of a message, on its way to the devices of one account: inline content or manifest, or a chunk."""

    __slots__ = ("chunk_bytes", "content_bytes", "message", "parts", "served", "to")

    def __init__(self, message: Message, to: int, parts: int, content_bytes: int, chunk_bytes: int) -> None:
        self.message = message
        self.to = to
        self.parts = parts
        self.content_bytes = content_bytes
        self.chunk_bytes = chunk_bytes
        self.served: set[int] = set()
        """Devices for which it was submitted, and not refused."""


class _Asked:
    """A command that is not answered yet; `missing` positions of a submit have no receipt."""

    __slots__ = ("command", "due_ms", "job", "missing", "sents", "wait_ms")

    def __init__(self, command: DeviceCommand, job: Job | None, sents: list[Sent]) -> None:
        self.command = command
        self.job = job
        self.sents = sents
        self.missing = len(sents)
        self.wait_ms = _AGAIN_MS
        self.due_ms = 0


class Handset:
    """One device.

    Args:
        town: carries its packets, and keeps the ledger.
        index: its number.
        person: whose it is.
        keys: its public keys and names.
    """

    __slots__ = (
        "_asked",
        "_hello",
        "_hello_due_ms",
        "_hello_wait_ms",
        "_link_id",
        "_opener",
        "_out",
        "_partial",
        "_ref",
        "_sealer",
        "_seen",
        "_waiting",
        "contacts",
        "cuts",
        "enrolled",
        "heard",
        "index",
        "keys",
        "linked",
        "links_made",
        "online",
        "person",
        "town",
    )

    def __init__(self, town: "Town", index: int, person: int, keys: "DeviceKeys") -> None:
        self.town = town
        self.index = index
        self.person = person
        self.keys = keys
        self.online = False
        self.linked = False
        self.enrolled = False
        self.cuts = 0
        self.links_made = 0
        self.contacts: dict[int, ListView] = {}
        self.heard: set[int] = set()
        self._asked: dict[int, _Asked] = {}
        self._waiting: dict[int, list[Job]] = {}
        self._partial: dict[int, int] = {}
        self._seen: set[bytes] = set()
        self._out: list[DeviceCommand] = []
        self._ref = 0
        self._hello: bytes | None = None
        self._hello_wait_ms = _AGAIN_MS
        self._hello_due_ms = 0
        self._link_id = b""
        self._sealer: SizedSealer | None = None
        self._opener: SizedOpener | None = None

    # ---- on and off

    @property
    def reachable(self) -> bool:
        """Whether packets pass: it is on, and no partition and no state stands between."""
        return self.online and not self.cuts

    def switch_on(self) -> None:
        """Come onto the network."""
        if not self.online:
            self.online = True
            self.town.offline -= 1
            self.resume()

    def switch_off(self, announced: bool) -> None:
        """Leave the network; announced, delivery is ended first."""
        if not self.online:
            return
        if announced and self.linked and self.enrolled and not self.cuts:
            self._say(Subscribe(self._fresh_ref(), self.keys.mailbox, 0, 0))
            self.flush()
        self.online = False
        self.town.offline += 1
        self._out.clear()

    def cut(self, on: bool) -> None:
        """Something comes between this device and the relay, or goes."""
        self.cuts += 1 if on else -1
        if self.reachable:
            self.resume()

    def resume(self) -> None:
        """Go on: on the old link if there is one, and repeat all that is not answered."""
        if not self.reachable:
            return
        if not self.linked:
            self._begin_link()
            return
        self.keep_alive()
        for ref in list(self._asked):
            self._repeat_now(ref)

    def keep_alive(self) -> None:
        """Ask for delivery, which is also the question whether the link still stands."""
        if self.linked and self.enrolled and self.reachable:
            self._say(Subscribe(self._fresh_ref(), self.keys.mailbox, 0, _CREDIT))

    # ---- the link

    def _begin_link(self) -> None:
        self.linked = False
        self._hello_wait_ms = _AGAIN_MS
        self._say_hello()

    def _say_hello(self) -> None:
        town = self.town
        self._hello = hello_packet(town.relay_id, town.entropy)
        self._hello_due_ms = town.calendar.now_ms + self._hello_wait_ms
        town.calendar.at(self._hello_due_ms, self._hello_again, self._hello)
        town.up(self, self._hello)

    def _hello_again(self, hello: bytes) -> None:
        if self._hello is hello and not self.linked and self.reachable:
            self._hello_wait_ms = min(2 * self._hello_wait_ms, _AGAIN_MAX_MS)
            self._say_hello()

    def _welcomed(self, packet: bytes) -> None:
        if self._hello is None:
            return
        try:
            link_id = link_id_of_welcome(self._hello, packet)
        except BlindpostError:
            return
        self._link_id = link_id
        self._sealer, self._opener = SizedSealer(link_id, b""), SizedOpener(b"")
        self.town.up(self, prove_packet(link_id, self.keys.device_key))

    def _is_linked(self) -> None:
        if self.linked:
            return
        self.linked = True
        self.links_made += 1
        self._hello = None
        self._out.clear()
        for ref in list(self._asked):
            self._repeat_now(ref)
        if self.enrolled:
            self.keep_alive()
        else:
            self.enrol()

    # ---- joining

    def enrol(self) -> None:
        """Ask to be enrolled, the first device of a person; or publish prekeys, once the list names this one."""
        if not self.linked or any(isinstance(asked.command, Enrol | PublishPrekeys) for asked in self._asked.values()):
            return
        joining = self.town.people.joining(self.index)
        if joining is not None:
            self._ask(joining.command(self._fresh_ref()))

    def publish_list(self, signed: SignedList) -> None:
        """Publish the person's next list."""
        self._ask(PublishList(self._fresh_ref(), signed))

    def _joined(self, command: DeviceCommand) -> None:
        if isinstance(command, Enrol | PublishPrekeys) and not self.enrolled:
            self.enrolled = True
            self.keep_alive()
            self.town.people.joined(self)
        elif isinstance(command, PublishList):
            self.town.people.listed(self)

    # ---- writing

    def write(self, message: Message) -> None:
        """Send a message to all whom it is for."""
        for to in message.to:
            for parts, content_bytes, chunk_bytes in self.town.bodies.parts_of(message.content_bytes):
                self._go(Job(message, to, parts, content_bytes, chunk_bytes))

    def _go(self, job: Job) -> None:
        view = self.contacts.get(job.to)
        if view is not None:
            self._submit(job, view)
            return
        waiting = self._waiting.get(job.to)
        if waiting is None:
            self._waiting[job.to] = [job]
            self._look_up(job.to)
        else:
            waiting.append(job)

    def _look_up(self, to: int) -> None:
        self._ask(LookUp(self._fresh_ref(), self.town.accounts[to], True))

    def _submit(self, job: Job, view: "ListView") -> None:
        town = self.town
        now_s = town.calendar.now_ms // 1_000
        expiry_s = town.expiry_s(now_s)
        envelopes: list[Envelope] = []
        sents: list[Sent] = []
        body_bytes = 0
        for device, mailbox in (*view.entries, *town.people.own_others(self)):
            if device in job.served:
                continue
            token = town.entropy(16)
            body = town.bodies.make(self, job, device, token)
            if body_bytes + len(body) > _SUBMIT_BYTES_MAX:
                # One frame does not hold it: the rest goes in another submit.
                self._ask_submit(view, job, envelopes, sents)
                envelopes, sents, body_bytes = [], [], 0
            envelope_id = envelope_id_of(token)
            sent = Sent(job.message, device, token, envelope_id, expiry_s, crc32(body), job.parts)
            town.ledger.sent[envelope_id] = sent
            envelopes.append(Envelope(mailbox, envelope_id, expiry_s, body))
            sents.append(sent)
            job.served.add(device)
            body_bytes += len(body)
        self._ask_submit(view, job, envelopes, sents)

    def _ask_submit(self, view: "ListView", job: Job, envelopes: list[Envelope], sents: list[Sent]) -> None:
        if envelopes:
            self.town.ledger.hour.envelopes += len(sents)
            self._ask(Submit(self._fresh_ref(), view.account, view.list_hash, tuple(envelopes)), job, sents)

    def withdraw(self, sents: list[Sent], mailbox: bytes) -> None:
        """Take envelopes of one mailbox back."""
        for start in range(0, len(sents), TOKENS_PER_ACK_MAX):
            part = sents[start : start + TOKENS_PER_ACK_MAX]
            self._ask(Withdraw(self._fresh_ref(), mailbox, tuple(sent.token for sent in part)), None, part)

    # ---- saying and repeating

    def _fresh_ref(self) -> int:
        self._ref += 1
        return self._ref

    def _ask(self, command: DeviceCommand, job: Job | None = None, sents: list[Sent] | None = None) -> None:
        asked = self._asked[command.ref] = _Asked(command, job, sents or [])
        if self.linked and self.reachable:
            self._say(command)
            self._expect(command.ref, asked)

    def _expect(self, ref: int, asked: _Asked) -> None:
        calendar, grid_ms = self.town.calendar, self.town.timer_grid_ms
        # Timers of one moment share a turn.
        asked.due_ms = -(-(calendar.now_ms + asked.wait_ms) // grid_ms) * grid_ms
        calendar.at(asked.due_ms, self._repeat, ref, asked.due_ms)

    def _repeat(self, ref: int, due_ms: int) -> None:
        asked = self._asked.get(ref)
        if asked is not None and asked.due_ms == due_ms and self.linked and self.reachable:
            asked.wait_ms = min(2 * asked.wait_ms, _AGAIN_MAX_MS)
            self._say(asked.command)
            self._expect(ref, asked)

    def _repeat_now(self, ref: int) -> None:
        asked = self._asked[ref]
        asked.wait_ms = _AGAIN_MS
        self._say(asked.command)
        self._expect(ref, asked)

    def _say(self, command: DeviceCommand) -> None:
        if not self._out:
            self.town.talking.append(self)
        self._out.append(command)

    def flush(self) -> None:
        """Say in as few frames as the limits allow what has gathered."""
        commands, self._out = self._out, []
        if self._sealer is None or not commands:
            return
        frame: list[DeviceCommand] = []
        room = _ROOM_BYTES
        for command in commands:
            size = _size_of(command)
            if frame and (size > room or len(frame) == COMMANDS_PER_FRAME_MAX):
                self.town.up(self, self._sealer.seal(encode_commands(frame)))
                frame, room = [], _ROOM_BYTES
            frame.append(command)
            room -= size
        self.town.up(self, self._sealer.seal(encode_commands(frame)))

    # ---- hearing

    def hear(self, packet: bytes) -> None:
        """A packet of the relay has come."""
        kind = packet[0]
        if kind == FRAME:
            if self._opener is None or packet[1:9] != self._link_id:
                return
            plain = self._opener.open(packet)
            if plain is not None:
                for command in decode_relay_commands(plain):
                    self._on(command)
        elif kind == WELCOME:
            self._welcomed(packet)
        elif kind == UNKNOWN_LINK and self.linked and packet[1:9] == self._link_id:
            self._begin_link()

    def _on(self, command: RelayCommand) -> None:
        match command:
            case Receipts():
                self._receipted(command)
            case Delivery():
                self._delivered(command)
            case Done(refs):
                for ref in refs:
                    self._done(ref)
            case Refusal():
                self._refused(command)
            case Directory():
                self._told(command)
            case Linked():
                self._is_linked()

    def _receipted(self, command: Receipts) -> None:
        town = self.town
        for entry in command.entries:
            asked = self._asked.get(entry.ref)
            if asked is None or not isinstance(asked.command, Submit) or entry.position >= len(asked.sents):
                continue
            sent = asked.sents[entry.position]
            if sent.receipted:
                continue
            envelope = asked.command.envelopes[entry.position]
            receipt: Receipt = receipt_of(envelope, command.header, command.signature, entry)
            if not town.is_genuine(receipt):
                town.ledger.false_receipts += 1
                continue
            sent.receipted = True
            town.ledger.hour.receipted += 1
            asked.missing -= 1
            if not asked.missing:
                del self._asked[entry.ref]

    def _delivered(self, command: Delivery) -> None:
        town = self.town
        tokens = []
        for delivered in command.envelopes:
            sent = town.ledger.sent.get(delivered.envelope_id)
            if sent is None or sent.device != self.index:
                town.ledger.strange += 1
                continue
            if crc32(delivered.body) != sent.check:
                town.ledger.spoilt += 1
                continue
            tokens.append(sent.token)
            if delivered.envelope_id not in self._seen:
                self._seen.add(delivered.envelope_id)
                self._take(sent)
        if tokens:
            self._ask(Ack(self._fresh_ref(), self.keys.mailbox, tuple(tokens)))

    def _take(self, sent: Sent) -> None:
        ledger = self.town.ledger
        ledger.hour.delivered += 1
        message = sent.message
        if sent.parts > 1:
            missing = self._partial.get(message.number, sent.parts) - 1
            self._partial[message.number] = missing
            if missing:
                sent.shown = True
                return
            del self._partial[message.number]
        if sent.shown:
            ledger.hour.shown_twice += 1
        sent.shown = True
        ledger.hour.shown += 1
        self.heard.add(message.person)
        self.town.shown(self, message)

    def _done(self, ref: int) -> None:
        asked = self._asked.pop(ref, None)
        if asked is None:
            return
        if isinstance(asked.command, Withdraw):
            for sent in asked.sents:
                sent.withdrawn = True
            self.town.ledger.hour.withdrawn += len(asked.sents)
        elif not isinstance(asked.command, Ack):
            self._joined(asked.command)

    def _told(self, command: Directory) -> None:
        asked = self._asked.pop(command.ref, None)
        if asked is None:
            return
        try:
            view = self.town.people.view_of(command.signed_list)
        except BlindpostError:
            self._alarmed(asked)
            return
        self._follow(view)
        for job in self._waiting.pop(view.person, ()):
            self._submit(job, self.contacts[view.person])

    def _follow(self, view: "ListView") -> bool:
        """Take a list for the person's; False if it is not of the pinned key, or older."""
        known = self.contacts.get(view.person)
        if known is None or (view.account_key == known.account_key and view.version > known.version):
            self.contacts[view.person] = view
            return True
        if view.account_key != known.account_key:
            self.town.alarm(self, view.person)
        return view is known

    def _alarmed(self, asked: _Asked) -> None:
        """A list came that its owner did not sign: nothing goes to that account, and the person is told."""
        if isinstance(asked.command, LookUp):
            person = self.town.people.person_named(asked.command.account)
            self.town.ledger.failed += len(self._waiting.pop(person, ()))
        else:
            assert isinstance(asked.command, Submit)
            person = self.town.people.person_named(asked.command.account)
            self.town.ledger.failed += 1
        self.town.alarm(self, person)

    def _refused(self, command: Refusal) -> None:
        town = self.town
        code = RefusalCode(command.code)
        town.ledger.refuse(code.name.lower())
        asked = self._asked.get(command.ref)
        if asked is None:
            return
        if not code.definite:
            asked.wait_ms = max(asked.wait_ms, command.retry_after_ms)
            self._expect(command.ref, asked)
            return
        if code is RefusalCode.UNKNOWN_ACCOUNT and isinstance(asked.command, LookUp):
            # Whoever is written to before the first morning may not be enrolled yet.
            asked.wait_ms = _UNKNOWN_AGAIN_MS
            self._expect(command.ref, asked)
            return
        del self._asked[command.ref]
        for sent in asked.sents:
            if not isinstance(asked.command, Withdraw):
                del town.ledger.sent[sent.envelope_id]
                if asked.job is not None:
                    asked.job.served.discard(sent.device)
        if code is RefusalCode.STALE_LIST and asked.job is not None:
            try:
                view = town.people.view_of(decode(SignedList, command.attachment, "stale list"))
            except BlindpostError:
                self._alarmed(asked)
                return
            if self._follow(view):
                self._submit(asked.job, view)
                return
        if asked.job is not None:
            town.ledger.failed += 1


def _size_of(command: DeviceCommand) -> int:
    if isinstance(command, Submit):
        return 400 + sum(64 + len(envelope.body) for envelope in command.envelopes)
    if isinstance(command, Ack):
        return 32 + 18 * len(command.tokens)
    return len(encode(command))
