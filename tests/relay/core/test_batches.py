"""Batches: what an aborted one leaves behind (nothing), what waits for a commit, rotation, replay of a run."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from typing import Any

import pytest

from relay.core import CoreConfig, RelayCore, RelayIdentity, Snapshot
from relay.core.events import CommitRow, MailboxRow
from relay.store.memory import MemoryStore
from relay.store.protocol import StoreError
from tests.relay.world import HOUR_S, Device, Pair, World, a_pair, seeded
from wire.codec import encode
from wire.commands import (
    AddPrekeys,
    DeviceCommand,
    Enrol,
    LookUp,
    PublishList,
    PublishPrekeys,
    Refusal,
    Submit,
    Subscribe,
    Withdraw,
)
from wire.errors import FormatError, RefusalCode
from wire.link import WELCOME, begin_hello
from wire.receipt import CommitHeader, commit_hash, verify_header
from wire.rotation import follow_rotations, key_at
from wire.signing import SigningKey


def memory(world: World) -> MemoryStore:
    assert isinstance(world.store, MemoryStore)
    return world.store


def state_of(core: RelayCore) -> dict[str, Any]:
    """All that a batch can change, as plain values."""
    mailboxes, directory = core._mailboxes, core._directory
    return {
        "mailboxes": {
            box.id: (
                box.given,
                box.newest,
                box.gone,
                box.held,
                box.held_bytes,
                box.closed,
                [(key, held.seq, held.number, held.state) for key, held in box.entries.items()],
                [(key, held.seq, held.number, held.state) for key, held in box.tombstones.items()],
            )
            for box in mailboxes.by_id.values()
        },
        "live": mailboxes.live,
        "tokens": dict(directory._used_tokens),
        "tenants": dict(directory.tenants),
        "keys": sorted(directory._device_keys_used),
        "accounts": {name: (one.list_hash, list(one.mailboxes)) for name, one in directory.accounts.items()},
        "devices": {
            key: (one.account, one.mailbox.id, one.signed_prekey, one.kem_prekey, list(one.one_time), list(one.taken))
            for key, one in directory.devices.items()
        },
        "seqs": core._seqs.copy(),
        "head": (core._log.head_index, core._log.head_hash, list(core._log.commits)),
        "live of commits": {index: commit.live for index, commit in core._log.commits.items()},
        "bundles": [dict(link.bundle_answers) for link in core._links._links.values()],
        "pending": (core._queue.pending_bytes, [link.pending_commands for link in core._links._links.values()]),
    }


class Story:
    """A pair with some history, and one command of each kind that a batch makes durable."""

    def __init__(self) -> None:
        self.pair: Pair = a_pair()
        world, ana, bob = self.pair.world, self.pair.ana, self.pair.bob
        self.mails = [world.mail(bob) for _ in range(4)]
        world.send(ana, world.submit(ana, bob.account, *self.mails))
        world.send(bob, world.ack(bob, self.mails[0]))
        self.new = world.device("new")
        world.link(self.new)
        self.tablet = world.device("tablet", bob.account)
        world.send(bob, PublishList(bob.next_ref(), world.next_list(bob.account, bob, self.tablet)))
        for device in (ana, bob, self.new):
            device.inbox.clear()

    def command(self, name: str) -> tuple[Device, DeviceCommand]:
        world, ana, bob, new = self.pair.world, self.pair.ana, self.pair.bob, self.new
        made: dict[str, Callable[[], tuple[Device, DeviceCommand]]] = {
            "submit": lambda: (ana, world.submit(ana, bob.account, world.mail(bob), world.mail(self.tablet))),
            "submit of old and new": lambda: (ana, world.submit(ana, bob.account, self.mails[1], world.mail(bob))),
            "ack": lambda: (bob, world.ack(bob, *self.mails)),
            "withdraw": lambda: (ana, Withdraw(70, bob.mailbox, tuple(mail.token for mail in self.mails))),
            "enrol": lambda: (
                new,
                Enrol(71, world.token(new.account), world.first_list(new), new.prekeys()),
            ),
            "list": lambda: (bob, PublishList(72, world.next_list(bob.account, bob))),
            "prekeys": lambda: (bob, PublishPrekeys(73, bob.prekeys(generation=1))),
            "add prekeys": lambda: (bob, AddPrekeys(74, (bob.one_time("more"),))),
            "bundles": lambda: (ana, LookUp(75, bob.account, True)),
        }
        return made[name]()


COMMANDS = [
    "submit",
    "submit of old and new",
    "ack",
    "withdraw",
    "enrol",
    "list",
    "prekeys",
    "add prekeys",
    "bundles",
]


class TestAbort:
    @pytest.mark.parametrize("name", COMMANDS)
    def test_aborted_batch_leaves_the_state_as_it_was_and_the_command_works_again(self, name: str) -> None:
        story = Story()
        world = story.pair.world
        device, command = story.command(name)
        before, rows = state_of(world.core), memory(world).load()
        world.fail = 1
        world.send(device, command)
        assert state_of(world.core) == before
        assert memory(world).load() == rows
        (refusal,) = device.inbox
        assert refusal == Refusal(command.ref, RefusalCode.STORAGE_FAILED, "commit", 0, 1_000, b"")
        device.inbox.clear()
        world.send(device, command)
        assert not device.refusals()
        assert state_of(world.core) != before
        assert memory(world).load() != rows

    @pytest.mark.parametrize("name", COMMANDS)
    def test_the_state_in_memory_is_the_one_that_a_restart_finds(self, name: str) -> None:
        story = Story()
        world = story.pair.world
        device, command = story.command(name)
        world.fail = 1
        world.send(device, command)
        world.send(device, command)
        live = state_of(world.core)
        world.restart()
        loaded = state_of(world.core)
        for key in ("bundles", "pending", "seqs"):
            del live[key], loaded[key]
        for state in (live, loaded):
            # What was taken is remembered in memory only, and a mailbox's order of tombstones is that of the acks.
            state["devices"] = {key: one[:-1] for key, one in state["devices"].items()}
            state["mailboxes"] = {
                key: (*one[:6], sorted(one[6], key=str), sorted(one[7], key=str))
                for key, one in state["mailboxes"].items()
            }
        assert loaded == live

    def test_several_commands_in_one_aborted_batch_are_each_refused_once(self) -> None:
        story = Story()
        world, ana, bob = story.pair.world, story.pair.ana, story.pair.bob
        before = state_of(world.core)
        items = [story.command(name) for name in COMMANDS]
        for device, command in items:
            world.core.receive(device.tag, device.frame(command), world.now_ms)
        world.fail = 1
        world.run()
        assert state_of(world.core) == before
        refusals = [item for device in (ana, bob, story.new) for item in device.refusals()]
        assert {item.code for item in refusals} == {RefusalCode.STORAGE_FAILED}
        assert sorted(item.ref for item in refusals) == sorted(command.ref for _device, command in items)

    def test_nothing_else_stops_at_an_abort(self) -> None:
        pair = a_pair()
        world, ana, bob = pair.world, pair.ana, pair.bob
        first = world.submit(ana, bob.account, world.mail(bob))
        second = world.submit(ana, bob.account, world.mail(bob))
        world.core.receive(ana.tag, ana.frame(first), world.now_ms)
        batch = world.core.take_batch(world.now_ms)
        assert batch is not None
        world.core.receive(ana.tag, ana.frame(second), world.now_ms)
        world.core.aborted(batch, StoreError("full"), world.now_ms)
        world.run()
        assert [(item.ref, item.code) for item in ana.refusals()] == [(first.ref, RefusalCode.STORAGE_FAILED)]
        (receipt,) = world.check_receipts(second, ana.receipts()).values()
        assert receipt.number == 1

    def test_expiry_is_tried_again_after_a_rest_not_in_a_loop(self) -> None:
        pair = a_pair(credit=0)
        world, ana, bob = pair.world, pair.ana, pair.bob
        world.send(ana, world.submit(ana, bob.account, world.mail(bob)))
        before = state_of(world.core)
        world.fail = 1
        world.after(25 * HOUR_S * 1_000)
        assert world.fail == 0
        assert state_of(world.core)["mailboxes"] == before["mailboxes"]
        assert not world.core.has_work()
        assert world.core.next_deadline() == world.now_ms + 1_000
        world.after(1_000)
        assert not memory(world).envelopes

    def test_tenant_and_rotation_wait_until_a_commit_succeeds(self) -> None:
        world = World()
        world.core.admit_tenant("globex.example", seeded("globex"))
        world.core.rotate(seeded("next"), world.now_ms)
        world.fail = 1
        world.run()
        assert len(memory(world).tenants) == 1
        world.after(1_000)
        assert len(memory(world).tenants) == 2
        assert len(memory(world).rotations) == 1


class TestWaiting:
    def test_nothing_is_said_of_a_batch_before_its_commit(self) -> None:
        story = Story()
        world = story.pair.world
        for name in COMMANDS:
            device, command = story.command(name)
            world.core.receive(device.tag, device.frame(command), world.now_ms)
        batch = world.core.take_batch(world.now_ms)
        assert batch is not None
        assert world.core.take_packets() == []
        assert world.core.take_reads() == []
        world.end(batch)
        assert world.carry() > 0

    def test_link_made_while_the_directory_changes_is_confirmed_after_the_commit(self) -> None:
        world = World()
        ana = world.device("ana")
        world.link(ana)
        enrol = Enrol(1, world.token(ana.account), world.first_list(ana), ana.prekeys())
        for fails in (1, 0):
            world.core.receive(ana.tag, ana.frame(enrol), world.now_ms)
            batch = world.core.take_batch(world.now_ms)
            assert batch is not None
            ana.inbox.clear()
            ana.pending = begin_hello(world.relay_id, ana.rng.randbytes)
            world.core.receive(ana.tag, ana.pending.packet, world.now_ms)
            world.carry()
            world.carry()
            assert not ana.linked()
            world.fail = fails
            world.end(batch)
            world.carry()
            (linked,) = ana.linked()
            assert linked.devices[0].enrolled is not bool(fails)

    def test_link_that_is_not_confirmed_yet_is_told_nothing_else(self) -> None:
        world = World()
        ana = world.device("ana")
        world.link(ana)
        enrol = Enrol(1, world.token(ana.account), world.first_list(ana), ana.prekeys())
        world.core.receive(ana.tag, ana.frame(enrol), world.now_ms)
        batch = world.core.take_batch(world.now_ms)
        assert batch is not None
        ana.inbox.clear()
        ana.pending = begin_hello(world.relay_id, ana.rng.randbytes)
        world.core.receive(ana.tag, ana.pending.packet, world.now_ms)
        world.carry()
        world.core.stop()
        world.core.receive(ana.tag, ana.frame(LookUp(2, ana.account, False)), world.now_ms)
        assert world.carry() == 0
        world.end(batch)
        world.carry()
        # `linked` is the first command of the first frame, the refusal that waited comes after it.
        assert [type(item).__name__ for item in ana.inbox] == ["Linked", "Refusal"]

    @pytest.mark.parametrize("fails", [False, True])
    def test_old_receipts_wait_too_while_the_directory_changes(self, fails: bool) -> None:
        pair = a_pair()
        world, ana, bob = pair.world, pair.ana, pair.bob
        submit = world.submit(ana, bob.account, world.mail(bob))
        world.send(ana, submit)
        first = world.check_receipts(submit, ana.receipts())
        world.fail = fails
        world.send(ana, PublishPrekeys(ana.next_ref(), ana.prekeys(generation=1)), submit)
        assert world.check_receipts(submit, ana.receipts()) == ({} if fails else first)
        assert len(ana.refusals()) == (2 if fails else 0)

    def test_command_of_a_frame_that_is_refused_does_not_stop_the_others(self) -> None:
        pair = a_pair()
        world, ana, bob = pair.world, pair.ana, pair.bob
        good = world.submit(ana, bob.account, world.mail(bob))
        bad = Submit(ana.next_ref(), "nobody@acme.example", bytes(32), good.envelopes)
        world.send(ana, bad, good, Subscribe(ana.next_ref(), bob.mailbox, 0, 1))
        assert [item.code for item in ana.refusals()] == [RefusalCode.UNKNOWN_ACCOUNT, RefusalCode.NOT_ENTITLED]
        assert set(world.check_receipts(good, ana.receipts())) == {0}

    @pytest.mark.parametrize(
        ("config", "batches"),
        [
            (CoreConfig(batch_envelopes_max=4), [4, 4, 2]),
            (CoreConfig(batch_bytes_max=1_000), [4, 4, 2]),
            (CoreConfig(batch_commands_max=1), [2, 2, 2, 2, 2]),
        ],
    )
    def test_batches_are_bounded(self, config: CoreConfig, batches: list[int]) -> None:
        pair = a_pair(config)
        world, ana, bob = pair.world, pair.ana, pair.bob
        for _ in range(5):
            submit = world.submit(ana, bob.account, world.mail(bob), world.mail(bob))
            world.core.receive(ana.tag, ana.frame(submit), world.now_ms)
        sizes = []
        while world.core.has_work():
            batch = world.core.take_batch(world.now_ms)
            assert batch is not None
            sizes.append(len(batch.envelopes))
            world.end(batch)
        assert sizes == batches

    def test_only_one_batch_is_under_way(self) -> None:
        pair = a_pair()
        world, ana, bob = pair.world, pair.ana, pair.bob
        world.core.receive(ana.tag, ana.frame(world.submit(ana, bob.account, world.mail(bob))), world.now_ms)
        batch = world.core.take_batch(world.now_ms)
        assert batch is not None
        for misuse in (
            lambda: world.core.take_batch(world.now_ms),
            lambda: world.core.rotate(seeded("next"), world.now_ms),
            lambda: world.core.committed(type(batch)(), world.now_ms),
        ):
            with pytest.raises(AssertionError):
                misuse()

    def test_nothing_to_commit_is_no_batch(self) -> None:
        pair = a_pair()
        assert not pair.world.core.has_work()
        assert pair.world.core.take_batch(pair.world.now_ms) is None


class TestChain:
    def test_headers_are_chained_and_time_never_falls(self) -> None:
        pair = a_pair()
        world, ana, bob = pair.world, pair.ana, pair.bob
        for step_ms in (5, 0, -7_000, 3):
            world.now_ms += step_ms
            world.send(ana, world.submit(ana, bob.account, world.mail(bob)))
        world.restart()
        world.link(ana)
        world.now_ms -= 100_000
        world.send(ana, world.submit(ana, bob.account, world.mail(bob), world.mail(bob)))
        rows = [row for _idx, row in sorted(memory(world).commits.items())]
        headers = [verify_header(world.relay_key.public, row.header, row.signature) for row in rows]
        assert [header.index for header in headers] == [1, 2, 3, 4, 5]
        assert headers[0].previous == bytes(32)
        assert [header.previous for header in headers[1:]] == [commit_hash(row.header) for row in rows[:-1]]
        assert [header.time_ms for header in headers] == sorted(header.time_ms for header in headers)
        assert [header.leaf_count for header in headers] == [1, 1, 1, 1, 2]
        assert [len(row.leaves) for row in rows] == [32, 32, 32, 32, 64]

    def test_batch_without_envelopes_has_no_header(self) -> None:
        pair = a_pair()
        world, ana, bob = pair.world, pair.ana, pair.bob
        mail = world.mail(bob)
        world.send(ana, world.submit(ana, bob.account, mail))
        world.send(bob, world.ack(bob, mail))
        assert sorted(memory(world).commits) == [1]

    def test_old_receipts_of_many_leaves_are_found_again(self) -> None:
        pair = a_pair()
        world, ana, bob = pair.world, pair.ana, pair.bob
        submits = [world.submit(ana, bob.account, *(world.mail(bob) for _ in range(60))) for _ in range(6)]
        for submit in submits:
            world.core.receive(ana.tag, ana.frame(submit), world.now_ms)
        world.run()
        assert sorted(memory(world).commits) == [1]
        ana.inbox.clear()
        for submit in submits:
            world.send(ana, submit)
            assert len(world.check_receipts(submit, ana.receipts())) == 60
        assert len(world.core._log._paths) == 256


class TestRotation:
    def test_rotation_is_signed_by_both_keys_ends_all_links_and_is_stored(self) -> None:
        pair = a_pair()
        world, ana, bob = pair.world, pair.ana, pair.bob
        world.send(ana, world.submit(ana, bob.account, world.mail(bob)))
        head = memory(world).commits[1]
        new = SigningKey(seeded("next"))
        rotation = world.core.rotate(new.seed, world.now_ms)
        (record,) = follow_rotations(world.relay_key.public, [rotation])
        assert (record.new_key, record.commit_index) == (new.public, 1)
        assert record.commit_hash == commit_hash(head.header)
        assert world.core.counters.links == 0
        world.run()
        assert [row.record for row in memory(world).rotations.values()] == [encode(rotation)]
        world.send(ana, LookUp(9, ana.account, False))
        assert ana.unknown == 1
        for device in (ana, bob):
            world.link(device)
        world.send(ana, world.submit(ana, bob.account, world.mail(bob)))
        row = memory(world).commits[2]
        key = key_at(world.relay_key.public, [record], 2)
        assert verify_header(key, row.header, row.signature).previous == commit_hash(head.header)

    def test_restart_after_a_rotation_needs_the_new_key(self) -> None:
        world = World()
        new = SigningKey(seeded("next"))
        rotation = world.core.rotate(new.seed, world.now_ms)
        world.run()
        with pytest.raises(FormatError, match="not the one that the last rotation names"):
            world.restart()
        world.identity = RelayIdentity(world.relay_id, new.seed)
        world.restart()
        ana = world.device("ana")
        world.link(ana)
        assert len(ana.linked()) == 1
        world.identity = RelayIdentity(world.relay_id, new.seed, (encode(rotation),))
        world.restart()
        assert not world.core.has_work()

    def test_rotation_that_was_not_committed_before_a_crash_is_committed_after_it(self) -> None:
        world = World()
        new = SigningKey(seeded("next"))
        rotation = world.core.rotate(new.seed, world.now_ms)
        world.identity = RelayIdentity(world.relay_id, new.seed, (encode(rotation),))
        world.restart()
        world.run()
        assert [row.record for row in memory(world).rotations.values()] == [encode(rotation)]

    def test_attack_rotations_that_contradict_the_store_are_refused(self) -> None:
        world = World()
        new = SigningKey(seeded("next"))
        world.core.rotate(new.seed, world.now_ms)
        world.run()
        world.identity = RelayIdentity(world.relay_id, new.seed, (b"another",))
        with pytest.raises(FormatError, match="contradict each other"):
            world.restart()

    def test_rotation_to_the_same_key_is_refused(self) -> None:
        world = World()
        with pytest.raises(FormatError, match="is the current one"):
            world.core.rotate(world.relay_key.seed, world.now_ms)


class TestIdentity:
    def test_store_of_another_relay_is_refused(self) -> None:
        world = World()
        memory(world).relay["relay_id"] = bytes(16)
        with pytest.raises(FormatError, match="another relay's"):
            world.restart()

    def test_head_of_another_relay_or_index_is_refused(self) -> None:
        world = World()
        good = CommitHeader(world.relay_id, 0, 1, 0, 1, bytes(32), bytes(32))
        for header in (
            CommitHeader(bytes(16), 0, 1, 0, 1, bytes(32), bytes(32)),
            CommitHeader(world.relay_id, 1, 1, 0, 1, bytes(32), bytes(32)),
            CommitHeader(world.relay_id, 0, 2, 0, 1, bytes(32), bytes(32)),
        ):
            memory(world).commits[1] = CommitRow(1, encode(header), bytes(64), bytes(32))
            with pytest.raises(FormatError, match="commit header"):
                world.restart()
        memory(world).commits[1] = CommitRow(1, encode(good), bytes(64), bytes(32))
        world.restart()

    def test_empty_snapshot_is_a_new_relay(self) -> None:
        world = World()
        core = RelayCore(CoreConfig(), world.identity, Snapshot(), world.entropy)
        assert core.next_deadline() is None
        assert not core.has_work()

    def test_mailbox_rows_without_a_list_are_kept_but_speak_for_nobody(self) -> None:
        world = World()
        memory(world).mailboxes[9] = MailboxRow(9, b"m" * 16, b"d" * 32, "old@acme.example", 0, 7, 1)
        world.restart()
        assert world.core._mailboxes.by_id[b"m" * 16].given == 7


def a_run(seed: int) -> bytes:
    """A run of some variety; returns the hash of all packets that the relay sent."""
    world = World(CoreConfig(redeliver_whole_times=1), seed)
    devices = [world.enrolled(name) for name in ("ana", "bob", "cai")]
    for step in range(30):
        sender, recipient = devices[step % 3], devices[(step + 1 + step // 7) % 3]
        mail = world.mail(recipient, 400 + step)
        world.fail = step % 5 == 4
        world.send(sender, world.submit(sender, recipient.account, mail))
        if step % 2:
            world.send(recipient, world.ack(recipient, mail))
        if step % 6 == 5:
            world.link(recipient)
            world.subscribe(recipient)
        world.after(1_000 * step)
    digest = sha256()
    for tag, packet in world.packets:
        assert packet[0] >= WELCOME
        digest.update(tag + packet)
    return digest.digest()


def test_one_seed_replays_one_run_to_the_byte() -> None:
    assert a_run(7) == a_run(7)


def test_another_seed_is_another_run() -> None:
    assert a_run(7) != a_run(8)
