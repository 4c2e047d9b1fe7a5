"""The devices of a recorded run: real links, real sessions in two worlds, and the patience of a client.

A `Phone` is a device on the schedule of a script. It links, enrols, looks people up, encrypts to each of their devices,
submits, repeats what is not answered, decrypts what is delivered, acknowledges it a little later, and encrypts anew
when its list of somebody's devices was stale. What it does next never depends on a text: only on the script, on seeds,
and on what the relay says. Of client/ it uses contents and attachments, of keys/ all; it is not client/device.py, whose
store on a disk a run of thousands of messages under virtual time has no use for.
"""

import asyncio
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from client.content import Content
from keys.identity import AccountKey, DeviceKeys
from sim.experiments.noninterference.minds import (
    WORLDS,
    Mind,
    Said,
    Texts,
    open_in_all_worlds,
    seal_in_all_worlds,
)
from sim.experiments.noninterference.script import Misdeed, Send
from wire.codec import decode
from wire.commands import (
    Ack,
    AddPrekeys,
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
from wire.identity import DeviceList, SignedList, device_tag, list_hash, verify_signed_list
from wire.limits import FRAME_BYTES_MAX, TOKENS_PER_ACK_MAX
from wire.link import (
    FRAME,
    FRAME_OVERHEAD_BYTES,
    UNKNOWN_LINK,
    WELCOME,
    FrameOpener,
    FrameSealer,
    LinkKeys,
    PendingHello,
    accept_welcome,
    begin_hello,
    link_id_of,
)

if TYPE_CHECKING:
    from sim.experiments.noninterference.recording import Town

__all__ = ["Person", "Phone", "Sealed"]

ONE_TIME_PREKEYS: Final = 6
_FLUSH_S: Final = 0.005
_TICK_S: Final = 1.0
_AGAIN_S: Final = 2.0
_AGAIN_MAX_S: Final = 60.0
_KEEPALIVE_S: Final = 15.0
_ACK_MAX_S: Final = 1.5
_CREDIT: Final = 64
_ROOM_BYTES: Final = FRAME_BYTES_MAX - FRAME_OVERHEAD_BYTES - 64
_COMMANDS_MAX: Final = 64
_NO_COMMANDS: Final = b"\xa7nothing"


@dataclass(frozen=True, slots=True, repr=False)
class Sealed:
    """A frame before it was sealed, so that another body can take the place of each.

    Attributes:
        link_id: of its link.
        up_key: seals it.
        counter: its number.
        plain: what it says.
        commands: the same, decoded; none if it says nothing that a relay understands.
    """

    link_id: bytes
    up_key: bytes
    counter: int
    plain: bytes
    commands: tuple[DeviceCommand, ...]

    def __repr__(self) -> str:
        return f"Sealed(commands={len(self.commands)}, keys=<redacted>)"


@dataclass
class _Asked:
    """A command that is not answered yet."""

    command: DeviceCommand
    again_s: float
    wait_s: float
    job: "_Job | None" = None
    positions: set[int] = field(default_factory=set)


@dataclass(frozen=True, repr=False)
class _Job:
    """A message to the devices of one account."""

    account: str
    contents: tuple[Content, ...]
    expiry: int

    def __repr__(self) -> str:
        return f"_Job(account={self.account!r}, contents=<redacted>)"


class Person:
    """An account: its key, its devices, and the list that is published or about to be.

    Args:
        town: the run.
        index: the person's number.
    """

    def __init__(self, town: "Town", index: int) -> None:
        self.account = f"p{index:02d}@{'acme' if index % 2 else 'globex'}.example"
        rng = random.Random(f"{town.script.seed}/account/{index}")  # a run is to be repeatable
        self.key = AccountKey.generate(rng.randbytes)
        self.first = Phone(town, self, 0)
        self.second = Phone(town, self, 1)
        self.list = self.key.first_list(self.account, [self.first.keys.entry])
        self.token = town.token(self.account, rng.randbytes)

    @property
    def phones(self) -> "tuple[Phone, Phone]":
        """Both, of which the second may not be in use."""
        return self.first, self.second

    def change_devices(self) -> None:
        """Add the second device, or remove it."""
        removed = len(verify_signed_list(self.list).devices) > 1
        if removed:
            self.second.switch_off()
        phones = (self.first,) if removed else self.phones
        if not removed and self.second.was_removed:
            # A device that was removed has lost its mailbox for good (protocol.md section 2.2).
            return
        self.second.was_removed = removed
        self.list = self.key.next_list(self.list, [phone.keys.entry for phone in phones])
        self.first.publish(self.list)


class Phone:
    """One device.

    Args:
        town: the run, which carries packets and knows all envelopes.
        person: whose it is.
        number: 0 or 1.
    """

    def __init__(self, town: "Town", person: Person, number: int) -> None:
        name = f"{town.script.seed}/{person.account}/{number}"
        self._town = town
        self._person = person
        self._rng = random.Random(f"{name}/phone")  # a run is to be repeatable
        self.keys = DeviceKeys.generate(self._rng.randbytes)
        self.tag = device_tag(self.keys.public)
        self.on = False
        self.was_removed = False
        self._number = number
        now_s = town.now_s
        self._minds = tuple(
            Mind(self.keys, f"{name}/ring", f"{name}/mind/{world}", now_s, ONE_TIME_PREKEYS) for world in range(WORLDS)
        )
        self._texts = Texts(self._rng)
        self._contacts: dict[str, tuple[bytes, DeviceList]] = {}
        self._old_lists: dict[str, bytes] = {}
        self._waiting: dict[str, list[_Job]] = {}
        self._asked: dict[int, _Asked] = {}
        self._queue: deque[DeviceCommand] = deque()
        self._sent: list[tuple[Envelope, Said, str]] = []
        self._seen: set[tuple[bytes, bytes]] = set()
        self._acks: list[bytes] = []
        self._ref = 0
        self._pending: PendingHello | None = None
        self._link: LinkKeys | None = None
        self._sealer: FrameSealer | None = None
        self._opener: FrameOpener | None = None
        self._flushing = False
        self._heard_s = 0.0
        self._hello_s = 0.0
        self._published = number == 0
        self._receipted: list[Submit] = []

    # ---- life

    def switch_on(self) -> None:
        """Start, or come back."""
        if not self.on and not self._town.closed:
            self.on = True
            self._hello()
            self._loop.call_later(_TICK_S * (0.5 + self._rng.random() / 2), self._tick)

    def switch_off(self) -> None:
        """Hear and say nothing, and forget the link."""
        self.on = False
        self._link = self._pending = None

    @property
    def _loop(self) -> asyncio.AbstractEventLoop:
        return asyncio.get_running_loop()

    def _hello(self) -> None:
        self._pending = begin_hello(self._town.relay_id, self._rng.randbytes)
        self._hello_s = self._loop.time()
        self._town.up(self.tag, self._pending.packet, None)

    def _tick(self) -> None:
        """Repeat what is not answered; ask for the link when nothing was heard for long."""
        if not self.on or self._town.closed:
            return
        now_s = self._loop.time()
        if self._pending is not None and now_s >= self._hello_s + _AGAIN_S:
            self._hello()
        if self._link is not None:
            if now_s >= self._heard_s + _KEEPALIVE_S:
                self._heard_s = now_s
                self._subscribe()
            for asked in list(self._asked.values()):
                if now_s >= asked.again_s:
                    asked.wait_s = min(2 * asked.wait_s, _AGAIN_MAX_S)
                    asked.again_s = now_s + asked.wait_s
                    self._say(asked.command)
        self._loop.call_later(_TICK_S, self._tick)

    # ---- what the script has it do

    def send(self, act: Send, to: str) -> None:
        """Write to an account, and a copy to the own other devices."""
        contents = self._texts.contents(act.payload_bytes, (to,))
        expiry = self._town.now_s + act.expiry_s
        self._deliver(_Job(to, contents, expiry))
        if len(verify_signed_list(self._person.list).devices) > 1:
            self._deliver(_Job(self._person.account, contents, expiry))

    def withdraw(self) -> None:
        """Take back what was sent last."""
        if self._sent:
            envelope, said, _account = self._sent[-1]
            self._ask(lambda ref: Withdraw(ref, envelope.mailbox, (said.letter.token,)))

    def publish(self, signed: SignedList) -> None:
        """Publish the account's next list."""
        self._ask(lambda ref: PublishList(ref, signed))

    def refresh_prekeys(self, anew: bool) -> None:
        """Publish prekeys anew, or add one-time prekeys."""
        uploads = [mind.publish(ONE_TIME_PREKEYS if anew else 2) for mind in self._minds]
        assert uploads[0] == uploads[1], "the directory shows one set of prekeys in both worlds"
        if anew:
            self._ask(lambda ref: PublishPrekeys(ref, uploads[0]))
        else:
            self._ask(lambda ref: AddPrekeys(ref, uploads[0].one_time))

    def misbehave(self, misdeed: Misdeed, other: "Phone") -> None:
        """Ask for what must be refused."""
        match misdeed:
            case Misdeed.UNKNOWN_ACCOUNT:
                self._ask(lambda ref: LookUp(ref, "nobody@acme.example", True))
            case Misdeed.FOREIGN_ACK:
                self._ask(lambda ref: Ack(ref, other.keys.mailbox, (self._rng.randbytes(16),)))
            case Misdeed.USED_TOKEN:
                self._ask(lambda ref: Enrol(ref, self._person.token, self._person.list, self._minds[0].upload))
            case Misdeed.NO_COMMANDS:
                self._seal_frame(_NO_COMMANDS, ())
            case _:
                self._resubmit(misdeed)

    def _resubmit(self, misdeed: Misdeed) -> None:
        if not self._sent:
            return
        envelope, said, account = self._sent[-1]
        hashed, envelope_id, expiry = self._contacts[account][0], envelope.envelope_id, envelope.expiry
        match misdeed:
            case Misdeed.STALE_LIST:
                hashed, envelope_id = self._old_lists.get(account, bytes(32)), self._rng.randbytes(16)
            case Misdeed.PAST_EXPIRY:
                envelope_id, expiry = self._rng.randbytes(16), self._town.now_s - 1
        if misdeed is not Misdeed.REPEATED and said.letter.file_key is None:
            # The ratchet moves on for a body that nobody will open, as it does for one that was lost.
            again = seal_in_all_worlds(self._minds, said.recipient, said.letter, envelope_id, self._rng)
            envelope = Envelope(envelope.mailbox, envelope_id, expiry, again.bodies[0])
            self._town.register(envelope, again)
        self._ask(lambda ref: Submit(ref, account, hashed, (envelope,)))

    # ---- writing

    def _deliver(self, job: _Job) -> None:
        contact = self._contacts.get(job.account)
        entries = () if contact is None else contact[1].devices
        unknown = any(not self._minds[0].knows(entry.device_key) for entry in entries if entry != self.keys.entry)
        if contact is None or unknown:
            waiting = self._waiting.setdefault(job.account, [])
            waiting.append(job)
            if len(waiting) == 1:
                self._ask(lambda ref: LookUp(ref, job.account, True))
            return
        submits: list[list[Envelope]] = [[]]
        for entry in entries:
            if entry == self.keys.entry:
                continue
            for letter in self._texts.letters(job.contents):
                envelope_id = envelope_id_of(letter.token)
                said = seal_in_all_worlds(self._minds, entry.device_key, letter, envelope_id, self._rng)
                envelope = Envelope(entry.mailbox, envelope_id, job.expiry, said.bodies[0])
                self._town.register(envelope, said)
                self._sent.append((envelope, said, job.account))
                if letter.file_key is not None:
                    submits.insert(0, [envelope])
                else:
                    submits[-1].append(envelope)
        hashed = contact[0]
        for envelopes in submits:
            if envelopes:
                self._submit(job, hashed, tuple(envelopes))

    def _submit(self, job: _Job, hashed: bytes, envelopes: tuple[Envelope, ...]) -> None:
        self._ask(lambda ref: Submit(ref, job.account, hashed, envelopes), job)

    def _learn(self, signed: SignedList) -> DeviceList:
        devices = verify_signed_list(signed)
        old = self._contacts.get(devices.account)
        if old is not None and old[0] != list_hash(signed):
            self._old_lists[devices.account] = old[0]
        self._contacts[devices.account] = (list_hash(signed), devices)
        return devices

    def _on_directory(self, answer: Directory) -> None:
        asked = self._asked.pop(answer.ref, None)
        if asked is None:
            return
        devices = self._learn(answer.signed_list)
        bundles = {bundle.device_key: bundle for bundle in answer.bundles}
        for entry in devices.devices:
            bundle = bundles.get(entry.device_key)
            if bundle is not None and entry != self.keys.entry and not self._minds[0].knows(entry.device_key):
                for mind in self._minds:
                    mind.begin(self._person.list, entry, bundle)
        for job in self._waiting.pop(devices.account, []):
            # A device that is on the list and has published no prekeys yet is looked up again a little later.
            if all(entry == self.keys.entry or self._minds[0].knows(entry.device_key) for entry in devices.devices):
                self._deliver(job)
            else:
                self._loop.call_later(_AGAIN_S, self._deliver, job)

    # ---- speaking

    def _ask(self, command_of: Callable[[int], DeviceCommand], job: _Job | None = None) -> None:
        self._ref += 1
        command = command_of(self._ref)
        self._asked[self._ref] = _Asked(command, self._loop.time() + _AGAIN_S, _AGAIN_S, job)
        self._say(command)

    def _say(self, command: DeviceCommand) -> None:
        if self._link is None or not self.on:
            return
        self._queue.append(command)
        if not self._flushing:
            self._flushing = True
            self._loop.call_later(_FLUSH_S, self._flush)

    def _flush(self) -> None:
        self._flushing = False
        while self._queue:
            commands: list[DeviceCommand] = []
            room = _ROOM_BYTES
            while self._queue and len(commands) < _COMMANDS_MAX:
                size = len(encode_commands((self._queue[0],)))
                if size > room:
                    break
                room -= size
                commands.append(self._queue.popleft())
            assert commands, "one command fits a frame"
            self._seal_frame(encode_commands(commands), tuple(commands))

    def _seal_frame(self, plain: bytes, commands: tuple[DeviceCommand, ...]) -> None:
        if self._sealer is None or self._link is None or not self.on:
            return
        packet = self._sealer.seal(plain)
        link = self._link
        self._town.up(self.tag, packet, Sealed(link.link_id, link.up_key, self._sealer.counter, plain, commands))

    def _subscribe(self) -> None:
        self._ask(lambda ref: Subscribe(ref, self.keys.mailbox, 0, _CREDIT))

    # ---- hearing

    def hear(self, packet: bytes) -> None:
        """A packet from the relay, whatever the network made of it."""
        if not self.on or not packet:
            return
        if packet[0] == WELCOME and self._pending is not None:
            self._welcome(packet)
        elif packet[0] == UNKNOWN_LINK and self._link is not None and packet[1:] == self._link.link_id:
            self._link = None
            self._hello()
        elif packet[0] == FRAME and self._opener is not None and self._link is not None:
            if link_id_of(packet) != self._link.link_id:
                return
            plain = self._opener.open(packet)
            if plain is not None:
                self._heard_s = self._loop.time()
                for command in decode_relay_commands(plain):
                    self._on(command)

    def _welcome(self, packet: bytes) -> None:
        assert self._pending is not None, "a hello was said"
        try:
            keys, _chain, prove = accept_welcome(self._pending, self._town.relay_key, packet, [self.keys.signing])
        except BlindpostError:
            # Of an older hello, or spoilt on the way: the next hello follows.
            return
        self._pending = None
        self._link = keys
        self._town.link_keys[keys.link_id] = keys.down_key
        self._sealer, self._opener = FrameSealer(keys.link_id, keys.up_key), FrameOpener(keys.down_key)
        self._queue.clear()
        self._heard_s = self._loop.time()
        self._town.up(self.tag, prove, None)

    def _on(self, command: RelayCommand) -> None:
        match command:
            case Linked():
                self._on_linked(command)
            case Receipts():
                self._on_receipts(command)
            case Delivery():
                self._on_delivery(command)
            case Directory():
                self._on_directory(command)
            case Refusal():
                self._on_refusal(command)
            case Done(refs):
                for ref in refs:
                    self._on_done(ref)

    def _on_linked(self, linked: Linked) -> None:
        if not linked.devices[0].enrolled and self._number == 0:
            if not any(isinstance(asked.command, Enrol) for asked in self._asked.values()):
                self._ask(lambda ref: Enrol(ref, self._person.token, self._person.list, self._minds[0].upload))
        elif linked.devices[0].enrolled:
            if not self._published:
                self._published = True
                self._ask(lambda ref: PublishPrekeys(ref, self._minds[0].upload))
            self._subscribe()
        for asked in self._asked.values():
            self._say(asked.command)

    def _on_done(self, ref: int) -> None:
        asked = self._asked.pop(ref, None)
        if asked is None:
            return
        if isinstance(asked.command, Enrol):
            self._subscribe()
        elif isinstance(asked.command, PublishList) and not self._person.second.was_removed:
            self._person.second.switch_on()

    def _on_receipts(self, receipts: Receipts) -> None:
        for entry in receipts.entries:
            asked = self._asked.get(entry.ref)
            if asked is not None and isinstance(asked.command, Submit):
                asked.positions.add(entry.position)
                if len(asked.positions) == len(asked.command.envelopes):
                    del self._asked[entry.ref]

    def _on_refusal(self, refusal: Refusal) -> None:
        asked = self._asked.get(refusal.ref)
        if asked is None:
            return
        if not RefusalCode(refusal.code).definite:
            asked.again_s = self._loop.time() + refusal.retry_after_ms / 1_000
            return
        del self._asked[refusal.ref]
        if refusal.code == RefusalCode.STALE_LIST and asked.job is not None:
            self._learn(decode(SignedList, refusal.attachment, "attachment"))
            self._deliver(asked.job)
        elif isinstance(asked.command, LookUp):
            self._waiting.pop(asked.command.account, None)

    def _on_delivery(self, delivery: Delivery) -> None:
        for item in delivery.envelopes:
            key = (delivery.mailbox, item.envelope_id)
            said = self._town.said_in(key, item.body)
            if key not in self._seen:
                self._seen.add(key)
                self._town.opened += open_in_all_worlds(self._minds, said, item.envelope_id, self._town.now_s)
            self._acks.append(said.letter.token)
        self._loop.call_later(self._rng.random() * _ACK_MAX_S, self._acknowledge)

    def _acknowledge(self) -> None:
        tokens, self._acks = list(dict.fromkeys(self._acks)), []
        for start in range(0, len(tokens), TOKENS_PER_ACK_MAX):
            self._acknowledge_these(tuple(tokens[start : start + TOKENS_PER_ACK_MAX]))

    def _acknowledge_these(self, tokens: tuple[bytes, ...]) -> None:
        self._ask(lambda ref: Ack(ref, self.keys.mailbox, tokens))
