"""The devices of a recorded run: real links, real sessions in two worlds, and the patience of a client.

A `Phone` is a device on the schedule of a script. It links, enrols, looks people up, encrypts to each of their devices,
submits, repeats what is not answered, decrypts what is delivered, acknowledges it a little later, and encrypts anew
when its list of somebody's devices was stale. What it does next never depends on a text: only on the script, on seeds,
and on what the relay says. Of client/ it uses contents and attachments, of keys/ all; it is not client/device.py, whose
store on a disk a run of thousands of messages under virtual time has no use for.
"""

import random
from typing import TYPE_CHECKING, Final

from keys.identity import AccountKey
from sim.experiments.noninterference.linked import AGAIN_S, Job, LinkedPhone
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
    Withdraw,
)
from wire.envelope import Envelope, envelope_id_of
from wire.errors import RefusalCode
from wire.identity import DeviceList, SignedList, list_hash, verify_signed_list
from wire.limits import TOKENS_PER_ACK_MAX

if TYPE_CHECKING:
    from sim.experiments.noninterference.recording import Town

__all__ = ["Person", "Phone"]

ONE_TIME_PREKEYS: Final = 6
_ACK_MAX_S: Final = 1.5
_NO_COMMANDS: Final = b"\xa7nothing"


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


class Phone(LinkedPhone):
    """One device.

    Args:
        town: the run, which carries packets and knows all envelopes.
        person: whose it is.
        number: 0 or 1.
    """

    def __init__(self, town: "Town", person: Person, number: int) -> None:
        name = f"{town.script.seed}/{person.account}/{number}"
        super().__init__(town, name)
        self._person = person
        self.was_removed = False
        self._number = number
        now_s = town.now_s
        self._minds = tuple(
            Mind(self.keys, f"{name}/ring", f"{name}/mind/{world}", now_s, ONE_TIME_PREKEYS) for world in range(WORLDS)
        )
        self._texts = Texts(self._rng)
        self._contacts: dict[str, tuple[bytes, DeviceList]] = {}
        self._old_lists: dict[str, bytes] = {}
        self._waiting: dict[str, list[Job]] = {}
        self._sent: list[tuple[Envelope, Said, str]] = []
        self._seen: set[tuple[bytes, bytes]] = set()
        self._acks: list[bytes] = []
        self._published = number == 0

    # ---- what the script has it do

    def send(self, act: Send, to: str) -> None:
        """Write to an account, and a copy to the own other devices."""
        contents = self._texts.contents(act.payload_bytes, (to,))
        expiry = self._town.now_s + act.expiry_s
        self._deliver(Job(to, contents, expiry))
        if len(verify_signed_list(self._person.list).devices) > 1:
            self._deliver(Job(self._person.account, contents, expiry))

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

    def _deliver(self, job: Job) -> None:
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

    def _submit(self, job: Job, hashed: bytes, envelopes: tuple[Envelope, ...]) -> None:
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
                self._loop.call_later(AGAIN_S, self._deliver, job)

    # ---- hearing

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
