"""The core under any schedule of commands, faults, aborts and crashes, against a model of what was promised.

Promises that are checked after every step:

- what was receipted, and neither acked, withdrawn nor expired, is in the store with that very body;
- every receipt verifies, and is given only for what the store has committed;
- nothing is handed out after its ack or withdrawal was committed;
- the numbers of a mailbox strictly increase, and no envelope is stored twice;
- quotas of mailboxes are kept, tombstones included.

At the end the network heals, and everything that can still arrive does.
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from relay.core import Batch, CoreConfig, Read
from relay.core.events import EnvelopeRow
from relay.store.memory import MemoryStore
from relay.store.protocol import StoreError
from tests.relay.strategies import Fate, body_bytes, envelope_counts, expiries_s, fates, pauses_ms, picks
from tests.relay.world import Device, Mail, World
from wire.commands import (
    Delivery,
    LookUp,
    Receipts,
    RelayCommand,
    Submit,
    Subscribe,
    Withdraw,
    decode_relay_commands,
)
from wire.errors import RefusalCode
from wire.link import FRAME, WELCOME, FrameOpener, begin_hello, link_id_of
from wire.receipt import Receipt, verify_receipt

CONFIG = CoreConfig(
    mailbox_envelopes_max=14,
    mailbox_bytes_max=60_000,
    link_commands_max=8,
    link_bytes_max=100_000,
    batch_envelopes_max=6,
    batch_erasures_max=3,
    credit_max=4,
    delivery_bytes_max=22_000,
    read_bytes_max=5_000,
    redeliver_whole_times=2,
    hello_topic_per_s=1_000,
    hello_topic_burst=1_000,
    link_work_burst=10_000,
    commits_pruned_max=2,
)
NAMES = ["ana", "bob", "cai"]
Key = tuple[bytes, bytes]


class RelayMachine(RuleBasedStateMachine):
    """Three people, one relay, a network that does as it likes."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World(CONFIG)
        self.people = [self.world.enrolled(name, credit=3) for name in NAMES]
        self.spies: dict[bytes, FrameOpener] = {}
        self.submits: list[tuple[Device, Submit]] = []
        self.submit_of_ref: dict[tuple[bytes, int], Submit] = {}
        self.mails: dict[Key, Mail] = {}
        self.up: list[tuple[bytes, bytes]] = []
        self.down: list[tuple[bytes, bytes]] = []
        self.batch: Batch | None = None
        self.reads: list[tuple[Read, list[bytes | None]]] = []
        self.crashes = 0
        self.aborts = 0
        # The model.
        self.committed: dict[Key, EnvelopeRow] = {}
        self.erased: set[Key] = set()
        self.receipted: dict[Key, Receipt] = {}
        self.highest: dict[bytes, int] = {}
        for person in self.people:
            self._spy(person)

    # ---- looking on

    @property
    def store(self) -> MemoryStore:
        assert isinstance(self.world.store, MemoryStore)
        return self.world.store

    def _spy(self, device: Device) -> None:
        """Read along what the relay seals for a link, whatever the network does with it."""
        assert device.keys is not None
        spy = FrameOpener(device.keys.down_key)
        assert device.opener is not None
        spy.counter = device.opener.counter
        self.spies[device.keys.link_id] = spy

    def _gather(self) -> None:
        """Take what the relay says now; check it against the model; leave it to the network."""
        for tag, packet in self.world.core.take_packets():
            if packet[0] == FRAME:
                plain = self.spies[link_id_of(packet)].open(packet)
                assert plain is not None
                for command in decode_relay_commands(plain):
                    self._check(tag, command)
            self.down.append((tag, packet))

    def _check(self, tag: bytes, command: RelayCommand) -> None:
        if isinstance(command, Delivery):
            for item in command.envelopes:
                key = (command.mailbox, item.envelope_id)
                assert key not in self.erased, "delivered after its erasure was committed"
                row = self.committed[key]
                assert (item.number, item.expiry, item.body) == (row.number, row.expiry, row.body)
                assert item.expiry * 1_000 > self.world.now_ms
        elif isinstance(command, Receipts):
            for entry in command.entries:
                submit = self.submit_of_ref[tag, entry.ref]
                envelope = submit.envelopes[entry.position]
                key = (envelope.mailbox, envelope.envelope_id)
                receipt = Receipt(
                    command.header,
                    command.signature,
                    *key,
                    envelope.expiry,
                    entry.number,
                    entry.leaf,
                    entry.path,
                    sha256(envelope.body).digest(),
                )
                verify_receipt(self.world.relay_key.public, receipt)
                assert self.committed[key].number == entry.number
                assert self.receipted.setdefault(key, receipt) == receipt, "two receipts for one envelope"

    # ---- people

    def _send(self, device: Device, *commands: Submit | Withdraw | Subscribe | LookUp) -> None:
        self.up.append((device.tag, device.frame(*commands)))

    @rule(who=picks(), to=picks(), count=envelope_counts(), size=body_bytes(), expiry_s=expiries_s())
    def submit(self, who: int, to: int, count: int, size: int, expiry_s: int) -> None:
        sender, recipient = self.people[who % 3], self.people[to % 3]
        mails = [self.world.mail(recipient, size, expiry=self.world.now_s + expiry_s) for _ in range(count)]
        submit = self.world.submit(sender, recipient.account, *mails)
        self.submits.append((sender, submit))
        self.submit_of_ref[sender.tag, submit.ref] = submit
        self.mails.update({(mail.envelope.mailbox, mail.envelope.envelope_id): mail for mail in mails})
        self._send(sender, submit)

    @precondition(lambda self: self.submits)
    @rule(which=picks())
    def submit_again(self, which: int) -> None:
        sender, submit = self.submits[which % len(self.submits)]
        self._send(sender, submit)

    @rule(who=picks(), most=envelope_counts())
    def ack_what_came(self, who: int, most: int) -> None:
        device = self.people[who % 3]
        came = [self.mails[device.mailbox, item.envelope_id] for item in device.delivered()][:most]
        if came:
            self.up.append((device.tag, device.frame(self.world.ack(device, *came))))

    @precondition(lambda self: self.submits)
    @rule(which=picks())
    def withdraw(self, which: int) -> None:
        sender, submit = self.submits[which % len(self.submits)]
        envelope = submit.envelopes[0]
        mail = self.mails[envelope.mailbox, envelope.envelope_id]
        self._send(sender, Withdraw(sender.next_ref(), envelope.mailbox, (mail.token,)))

    @rule(who=picks(), after=picks(), credit=envelope_counts())
    def subscribe(self, who: int, after: int, credit: int) -> None:
        device = self.people[who % 3]
        cursor = after % (self.highest.get(device.mailbox, 0) + 1) if after % 4 == 0 else 0
        self._send(device, Subscribe(device.next_ref(), device.mailbox, cursor, credit))

    @rule(who=picks(), of=picks())
    def take_prekeys(self, who: int, of: int) -> None:
        device = self.people[who % 3]
        self._send(device, LookUp(device.next_ref(), self.people[of % 3].account, True))

    @rule(who=st.integers(0, 11))
    def link_anew(self, who: int) -> None:
        # Seldom: what was on its way under the old link is lost.
        if who < len(self.people):
            self._link(self.people[who])

    def _link(self, device: Device) -> None:
        """A handshake that the network lets pass; what else was on its way stays there."""
        self._gather()
        device.pending = begin_hello(self.world.relay_id, device.rng.randbytes)
        self.world.core.receive(device.tag, device.pending.packet, self.world.now_ms)
        for tag, packet in self.world.core.take_packets():
            assert tag == device.tag
            assert packet[0] == WELCOME
            self.world.hear(device, packet)
        self._spy(device)

    # ---- the network

    @precondition(lambda self: self.up)
    @rule(which=picks(), fate=fates())
    def carry_up(self, which: int, fate: Fate) -> None:
        self._carry(self.up, which, fate, lambda tag, packet: self.world.core.receive(tag, packet, self.world.now_ms))

    @precondition(lambda self: self.down)
    @rule(which=picks(), fate=fates())
    def carry_down(self, which: int, fate: Fate) -> None:
        self._carry(self.down, which, fate, lambda tag, packet: self.world.hear(self.world.devices[tag], packet))

    @staticmethod
    def _carry(
        packets: list[tuple[bytes, bytes]], which: int, fate: Fate, receive: Callable[[bytes, bytes], None]
    ) -> None:
        # In order more often than not: a late frame is dropped, and a run of dropped frames shows little.
        index = 0 if which % 4 else which // 4 % len(packets)
        tag, packet = packets.pop(index)
        if fate is Fate.SPOILT:
            packet = packet[:-1] + bytes((packet[-1] ^ 1,))
        if fate is not Fate.LOST:
            receive(tag, packet)
        if fate is Fate.DOUBLED:
            packets.append((tag, packet))

    @rule()
    def carry_all(self) -> None:
        """A moment in which the network does what it should."""
        up, self.up = self.up, []
        for tag, packet in up:
            self.world.core.receive(tag, packet, self.world.now_ms)
        self._gather()
        down, self.down = self.down, []
        for tag, packet in down:
            self.world.hear(self.world.devices[tag], packet)

    # ---- the relay

    @precondition(lambda self: self.batch is None)
    @rule(aborts=st.integers(0, 3))
    def whole_batch(self, aborts: int) -> None:
        """Take a batch and end it with nothing in between."""
        self.carry_all()
        self.take_batch()
        if self.batch is not None:
            if aborts == 3:
                self.abort()
            else:
                self.commit()

    @precondition(lambda self: self.batch is None)
    @rule()
    def take_batch(self) -> None:
        self.batch = self.world.core.take_batch(self.world.now_ms)

    @precondition(lambda self: self.batch is not None)
    @rule()
    def commit(self) -> None:
        assert self.batch is not None
        self._store_batch(self.batch)
        self.world.core.committed(self.batch, self.world.now_ms)
        self.batch = None

    def _store_batch(self, batch: Batch) -> None:
        before = {seq: (row.mailbox, row.envelope_id) for seq, row in self.store.envelopes.items()}
        self.store.commit(batch)
        for row in batch.envelopes:
            key = (row.mailbox, row.envelope_id)
            assert key not in self.committed, "stored twice"
            assert row.number > self.highest.get(row.mailbox, 0), "a number was given twice"
            self.highest[row.mailbox] = row.number
            self.committed[key] = row
        for seq in batch.envelopes_erased:
            self.erased.add(before[seq])

    @precondition(lambda self: self.batch is not None)
    @rule()
    def abort(self) -> None:
        assert self.batch is not None
        self.aborts += 1
        self.world.core.aborted(self.batch, StoreError("full"), self.world.now_ms)
        self.batch = None

    @rule()
    def start_reading(self) -> None:
        self.reads.extend((read, self.store.read(read.seqs)) for read in self.world.core.take_reads())

    @rule()
    def end_reading(self) -> None:
        self.world.core.loaded(self.reads, self.world.now_ms)
        self.reads = []

    @rule(stored=st.booleans(), happens=st.integers(0, 7))
    def crash(self, stored: bool, happens: int) -> None:
        """The relay is killed; a batch that was under way may have reached the disk."""
        if happens != 7:
            return
        self.crashes += 1
        if self.batch is not None and stored:
            self._store_batch(self.batch)
        self.batch, self.reads = None, []
        self.world.restart()
        for person in self.people:
            self._link(person)

    @rule(pause_ms=pauses_ms())
    def wait(self, pause_ms: int) -> None:
        self.world.now_ms += pause_ms
        self.world.core.tick(self.world.now_ms)

    # ---- the promises

    @invariant()
    def what_is_said_is_true(self) -> None:
        self._gather()

    @invariant()
    def what_was_receipted_is_held(self) -> None:
        held = {(row.mailbox, row.envelope_id): row for row in self.store.envelopes.values()}
        for key, receipt in self.receipted.items():
            if key not in self.erased:
                assert sha256(held[key].body).digest() == receipt.body_hash
        for key in held:
            assert key in self.committed
        for key in self.erased:
            # Before its expiry an erased envelope has a tombstone.
            assert key not in held

    @invariant()
    def quotas_are_kept(self) -> None:
        for person in self.people:
            rows = [row for row in self.store.envelopes.values() if row.mailbox == person.mailbox]
            stones = [row for row in self.store.tombstones.values() if row.mailbox == person.mailbox]
            assert len(rows) + len(stones) <= CONFIG.mailbox_envelopes_max
            stone_bytes = CONFIG.tombstone_bytes * len(stones)
            assert sum(len(row.body) for row in rows) + stone_bytes <= CONFIG.mailbox_bytes_max
        assert self.world.core._queue.pending_bytes >= 0
        for link in self.world.core._links._links.values():
            assert 0 <= link.pending_commands <= CONFIG.link_commands_max
            assert 0 <= link.pending_bytes <= CONFIG.link_bytes_max

    def teardown(self) -> None:
        """Let the network heal: what is live arrives and can be acked, and every submit gets a true answer."""
        if self.batch is not None:
            self.commit()
        self.end_reading()
        for person in self.people:
            self._link(person)
        self.up.clear()
        self._settle()
        for sender, submit in self.submits:
            sender.inbox.clear()
            self._send(sender, submit)
            self._settle()
            answers = self.world.check_receipts(submit, sender.receipts())
            refusals = [item.code for item in sender.refusals() if item.ref == submit.ref]
            expired = any(envelope.expiry <= self.world.now_s for envelope in submit.envelopes)
            if len(answers) < len(submit.envelopes):
                full = {RefusalCode.MAILBOX_FULL}
                assert refusals
                assert set(refusals) <= (full | {RefusalCode.EXPIRY_INVALID} if expired else full)
        for person in self.people:
            self._send(person, Subscribe(person.next_ref(), person.mailbox, 0, 4))
        self._settle()
        for _ in range(40):
            for person in self.people:
                came = [self.mails[person.mailbox, item.envelope_id] for item in person.delivered()]
                if came:
                    self.up.append((person.tag, person.frame(self.world.ack(person, *came))))
            if not self.up:
                break
            self._settle()
        late = [row for row in self.store.envelopes.values() if row.expiry > self.world.now_s]
        assert not late, "something live was never delivered"

    def _settle(self) -> None:
        """Carry, commit and read until nothing more happens."""
        for _ in range(400):
            up, self.up = self.up, []
            for tag, packet in up:
                self.world.core.receive(tag, packet, self.world.now_ms)
            if self.world.core.has_work():
                self.batch = self.world.core.take_batch(self.world.now_ms)
                if self.batch is not None:
                    self.commit()
            self.start_reading()
            busy = bool(self.reads)
            self.end_reading()
            self._gather()
            down, self.down = self.down, []
            for tag, packet in down:
                self.world.hear(self.world.devices[tag], packet)
            if not (up or down or busy or self.world.core.has_work()):
                return
        raise AssertionError("the relay does not come to rest")


TestRelayUnderAnySchedule = RelayMachine.TestCase
TestRelayUnderAnySchedule.settings = settings(stateful_step_count=60)


class _ForgetfulCommit(RelayMachine):
    """The attack twin: a store that loses what it promised. The machine must notice."""

    def _store_batch(self, batch: Batch) -> None:
        super()._store_batch(batch)
        for row in batch.envelopes:
            del self.store.envelopes[row.seq]


def test_the_machine_notices_a_store_that_loses_what_was_receipted() -> None:
    machine = _ForgetfulCommit()
    machine.submit(0, 1, 1, 400, 3_600)
    machine.carry_up(1, Fate.CARRIED)
    machine.take_batch()
    machine.commit()
    machine.what_is_said_is_true()
    with pytest.raises(KeyError):
        machine.what_was_receipted_is_held()


def test_the_machine_notices_a_delivery_after_its_ack() -> None:
    machine = RelayMachine()
    machine.submit(0, 1, 1, 400, 3_600)
    machine.carry_up(1, Fate.CARRIED)
    machine.take_batch()
    machine.commit()
    (key,) = machine.committed
    machine.erased.add(key)
    with pytest.raises(AssertionError, match="delivered after its erasure"):
        machine.what_is_said_is_true()
