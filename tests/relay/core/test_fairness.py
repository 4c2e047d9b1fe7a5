"""Fairness under virtual time: a loud sender, a dead recipient and a huge mailbox do not slow the others."""

from __future__ import annotations

from relay.core import CoreConfig
from relay.core.queue import TURN_BYTES
from tests.relay.world import Device, World, a_pair
from wire.commands import Enrol, Subscribe
from wire.errors import RefusalCode


def flood(world: World, sender: Device, to: Device, count: int, body_bytes: int = 400) -> None:
    """Send submits that wait for a batch."""
    for _ in range(count):
        submit = world.submit(sender, to.account, world.mail(to, body_bytes))
        world.core.receive(sender.tag, sender.frame(submit), world.now_ms)


class TestSenders:
    def test_attack_loud_sender_does_not_keep_a_quiet_one_out_of_the_next_batch(self) -> None:
        pair = a_pair(CoreConfig(batch_envelopes_max=200), credit=0)
        world, ana, bob = pair.world, pair.ana, pair.bob
        eve = world.enrolled("eve", credit=0)
        flood(world, eve, bob, 1_000)
        flood(world, ana, bob, 3)
        batch = world.core.take_batch(world.now_ms)
        assert batch is not None
        world.end(batch)
        world.carry()
        assert sum(len(item.entries) for item in ana.receipts()) == 3
        assert 0 < sum(len(item.entries) for item in eve.receipts()) < 200
        world.run()
        assert sum(len(item.entries) for item in eve.receipts()) > 700

    def test_attack_loud_sender_beside_a_quiet_one_makes_no_large_batches(self) -> None:
        config = CoreConfig(batch_envelopes_max=200, batch_envelopes_shared=20, shared_ms=250)
        pair = a_pair(config, credit=0)
        world, ana, bob = pair.world, pair.ana, pair.bob
        eve = world.enrolled("eve", credit=0)
        flood(world, eve, bob, 600)

        def batch_of() -> int:
            batch = world.core.take_batch(world.now_ms)
            assert batch is not None
            world.end(batch)
            return len(batch.envelopes)

        assert batch_of() == 200, "alone, a sender has whole batches"
        flood(world, ana, bob, 1)
        assert batch_of() == 20
        world.carry()
        assert sum(len(item.entries) for item in ana.receipts()) == 1
        assert batch_of() == 20, "Ana may send again at any moment"
        world.now_ms += 251
        assert batch_of() == 200, "she did not"
        world.run()
        assert sum(len(item.entries) for item in eve.receipts()) == 600

    def test_many_equal_senders_have_whole_batches(self) -> None:
        world = World(CoreConfig(batch_envelopes_max=100, batch_envelopes_shared=10))
        bob = world.enrolled("bob", credit=0)
        senders = [world.enrolled(f"sender{number}", credit=0) for number in range(4)]
        for sender in senders:
            flood(world, sender, bob, 200)
        batch = world.core.take_batch(world.now_ms)
        assert batch is not None
        assert len(batch.envelopes) == 100
        world.end(batch)
        world.carry()
        assert [sum(len(item.entries) for item in sender.receipts()) for sender in senders] == [25] * 4
        world.run()

    def test_attack_many_loud_senders_do_not_keep_a_quiet_one_out_of_the_next_batch(self) -> None:
        world = World(CoreConfig(batch_envelopes_shared=40))
        bob, ana = world.enrolled("bob", credit=0), world.enrolled("ana", credit=0)
        loud = [world.enrolled(f"loud{number}", credit=0) for number in range(20)]
        for device in loud:
            flood(world, device, bob, 60, body_bytes=2_400)
        flood(world, ana, bob, 1)
        batch = world.core.take_batch(world.now_ms)
        assert batch is not None
        world.end(batch)
        world.carry()
        assert len(batch.envelopes) == 40
        assert sum(len(item.entries) for item in ana.receipts()) == 1
        counts = [sum(len(item.entries) for item in device.receipts()) for device in loud]
        assert set(counts) <= {1, 2}
        world.run()

    def test_attack_sender_of_large_envelopes_gets_no_more_bytes_than_its_turns(self) -> None:
        pair = a_pair(
            CoreConfig(batch_bytes_max=600_000, batch_bytes_shared=600_000, batch_envelopes_shared=512), credit=0
        )
        world, ana, bob = pair.world, pair.ana, pair.bob
        eve = world.enrolled("eve", credit=0)
        flood(world, eve, bob, 10, body_bytes=150_000)
        flood(world, ana, bob, 100)
        batch = world.core.take_batch(world.now_ms)
        assert batch is not None
        # Between two turns of hers Ana has one of at least TURN_BYTES, as long as she has so much.
        small = [len(row.body) for row in batch.envelopes]
        assert small.count(400) * 700 >= min(100 * 700, 3 * TURN_BYTES)
        assert small.count(150_000) <= 4
        world.end(batch)
        world.run()

    def test_commands_of_one_link_stay_in_order_whatever_the_others_do(self) -> None:
        pair = a_pair(CoreConfig(batch_envelopes_max=7), credit=0)
        world, ana, bob = pair.world, pair.ana, pair.bob
        eve = world.enrolled("eve", credit=0)
        mails = [world.mail(bob) for _ in range(40)]
        for mail in mails:
            flood(world, eve, bob, 3)
            world.core.receive(ana.tag, ana.frame(world.submit(ana, bob.account, mail)), world.now_ms)
        world.run()
        world.subscribe(bob, credit=1_024)
        order = [one.envelope_id for one in bob.delivered()]
        wanted = [mail.envelope.envelope_id for mail in mails]
        assert [envelope_id for envelope_id in order if envelope_id in wanted] == wanted
        assert len(order) == 160

    def test_attack_loud_links_leave_room_for_the_next_one(self) -> None:
        world = World(CoreConfig(pending_bytes_max=100_000))
        bob = world.enrolled("bob", credit=0)
        loud = [world.enrolled(f"loud{number}", credit=0) for number in range(4)]
        ana = world.enrolled("ana", credit=0)
        for _ in range(100):
            for device in loud:
                flood(world, device, bob, 1)
        assert world.core._queue.pending_bytes < 85_000
        flood(world, ana, bob, 5)
        world.carry()
        refusals = [refusal for device in loud for refusal in device.refusals()]
        assert {(item.code, item.retry_after_ms) for item in refusals} == {(RefusalCode.OVERLOADED, 1_000)}
        assert not ana.refusals()
        world.run()
        assert sum(len(item.entries) for item in ana.receipts()) == 5
        assert world.core._queue.pending_bytes == 0

    def test_a_burst_right_after_enrolling_has_the_quota_of_an_enrolled_link(self) -> None:
        world = World(CoreConfig(link_bytes_unentitled_max=50_000))
        bob = world.enrolled("bob", credit=0)
        ana = world.device("ana")
        world.link(ana)
        signed = world.first_list(ana)
        world.send(ana, Enrol(ana.next_ref(), world.token(ana.account), signed, ana.prekeys()))
        flood(world, ana, bob, 200)
        world.run()
        assert not ana.refusals()
        assert sum(len(item.entries) for item in ana.receipts()) == 200


class TestRecipients:
    def test_huge_mailbox_takes_turns_with_small_ones(self) -> None:
        config = CoreConfig(read_bytes_max=20_000, read_turn_bytes=4_000, mailbox_envelopes_max=5_000)
        world = World(config)
        ana = world.enrolled("ana", credit=0)
        huge, small = world.enrolled("huge", credit=0), world.enrolled("small", credit=0)
        flood(world, ana, huge, 1_000)
        flood(world, ana, small, 5)
        world.run()
        for device in (huge, small):
            device.inbox.clear()
            frame = device.frame(Subscribe(device.next_ref(), device.mailbox, 0, 1_024))
            world.core.receive(device.tag, frame, world.now_ms)
        world.commit_once()
        world.read_once()
        world.carry()
        assert len(small.delivered()) == 5
        first = len(huge.delivered())
        assert 0 < first < 100
        assert world.core.has_reads()
        world.run()
        assert not world.core.has_reads()
        assert first + len(huge.delivered()) == 1_000

    def test_a_huge_mailbox_is_read_in_small_parts_while_others_send(self) -> None:
        world = World(CoreConfig(read_bytes_max=100_000, read_bytes_shared=10_000, read_turn_bytes=4_000))
        ana, huge, bob = (world.enrolled(name, credit=0) for name in ("ana", "huge", "bob"))
        flood(world, ana, huge, 900)
        world.run()
        world.now_ms += 1_000
        frame = huge.frame(Subscribe(huge.next_ref(), huge.mailbox, 0, 1_024))
        world.core.receive(huge.tag, frame, world.now_ms)

        def bytes_read() -> int:
            reads = world.core.take_reads()
            seqs = [seq for read in reads for seq in read.seqs]
            world.core.loaded([(read, world.store.read(read.seqs)) for read in reads], world.now_ms)
            return 400 * len(seqs)

        flood(world, ana, bob, 1)
        assert world.commit_once()
        assert 0 < bytes_read() <= 14_000
        world.now_ms += 250
        world.core.tick(world.now_ms)
        assert bytes_read() > 14_000, "nobody sends any more"

    def test_dead_recipients_repeats_do_not_hold_up_fresh_deliveries(self) -> None:
        world = World(CoreConfig(read_bytes_max=20_000, read_turn_bytes=4_000))
        ana = world.enrolled("ana", credit=0)
        dead, bob = world.enrolled("dead", credit=1_024), world.enrolled("bob", credit=64)
        flood(world, ana, dead, 500)
        world.run()
        assert len(dead.delivered()) == 500
        world.now_ms += 5_000
        world.core.tick(world.now_ms)
        assert world.core.has_reads(), "its window is to be repeated"
        mail = world.mail(bob)
        world.core.receive(ana.tag, ana.frame(world.submit(ana, bob.account, mail)), world.now_ms)
        world.commit_once()
        world.carry()
        assert [one.envelope_id for one in bob.delivered()] == [mail.envelope.envelope_id]
        world.read_once()
        world.carry()
        assert 0 < len(dead.delivered()) < 100, "its repeats come in turns"

    def test_deliveries_wait_while_too_much_is_to_be_sent_and_none_is_lost(self) -> None:
        pair = a_pair(CoreConfig(outgoing_bytes_max=50_000), credit=1_024)
        world, ana, bob = pair.world, pair.ana, pair.bob
        flood(world, ana, bob, 100)
        assert world.commit_once()
        assert world.core.has_backlog()
        assert not world.core.has_reads()
        assert not world.core.take_reads()
        world.carry()
        assert not world.core.has_backlog()
        first = len(bob.delivered())
        assert 0 < first < 100
        assert world.core.has_reads()
        world.run()
        assert first + len(bob.delivered()) == 100


class TestAnswersToAcks:
    def world(self) -> tuple[World, Device, Device]:
        world = World(ack_answer_ms=100)
        return world, world.enrolled("ana", credit=0), world.enrolled("bob", credit=64)

    def test_answer_to_an_ack_travels_with_the_next_frame(self) -> None:
        world, ana, bob = self.world()
        mails = [world.mail(bob) for _ in range(2)]
        world.send(ana, world.submit(ana, bob.account, mails[0]))
        ack = world.ack(bob, mails[0])
        world.send(bob, ack)
        assert not bob.done(), "it waits"
        bob.inbox.clear()
        before = world.core.counters.frames_sent
        world.send(ana, world.submit(ana, bob.account, mails[1]))
        assert bob.done() == [ack.ref]
        assert len(bob.delivered()) == 1
        assert world.core.counters.frames_sent == before + 2, "a receipt to Ana, one frame to Bob"
        world.after(1_000)
        assert not bob.done(), "it is said once"

    def test_answer_to_an_ack_waits_no_longer_than_it_may(self) -> None:
        world, ana, bob = self.world()
        acks = []
        for _ in range(2):
            mail = world.mail(bob)
            world.send(ana, world.submit(ana, bob.account, mail))
            acks.append(world.ack(bob, mail))
        world.send(bob, acks[0])
        start_ms = world.now_ms
        assert world.core.next_deadline() == start_ms + 100
        world.after(60)
        world.send(bob, acks[1])
        assert not bob.done()
        world.after(40)
        assert bob.done() == [ack.ref for ack in acks]

    def test_relay_that_stops_answers_every_ack_at_once(self) -> None:
        world, ana, bob = self.world()
        mails = [world.mail(bob) for _ in range(2)]
        world.send(ana, world.submit(ana, bob.account, *mails))
        first, second = (world.ack(bob, mail) for mail in mails)
        world.send(bob, first)
        world.core.receive(bob.tag, bob.frame(second), world.now_ms)
        world.core.stop()
        world.run()
        assert bob.done() == [first.ref, second.ref]

    def test_answer_of_a_link_that_was_replaced_is_forgotten_and_given_again(self) -> None:
        world, ana, bob = self.world()
        mail = world.mail(bob)
        world.send(ana, world.submit(ana, bob.account, mail))
        ack = world.ack(bob, mail)
        world.send(bob, ack)
        world.link(bob)
        world.after(1_000)
        assert not bob.done()
        world.send(bob, ack)
        assert bob.done() == [ack.ref]
