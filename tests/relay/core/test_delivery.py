"""Delivery (protocol.md sections 6.3 and 6.4): credit, cursor, repeats, reads from the store."""

from __future__ import annotations

import pytest

from relay.core import CoreConfig
from tests.relay.world import Pair, World, a_pair
from wire.commands import Delivery, Subscribe, Withdraw
from wire.limits import REDELIVERY_FIRST_MS, REDELIVERY_LAST_MS
from wire.link import begin_hello


def numbers(pair: Pair) -> list[int]:
    return [item.number for item in pair.bob.delivered()]


def send(pair: Pair, count: int, body_bytes: int = 400) -> list[int]:
    """Ana sends so many; returns the numbers that Bob got at once."""
    mails = [pair.world.mail(pair.bob, body_bytes) for _ in range(count)]
    pair.mails.extend(mails)
    for start in range(0, count, 64):
        pair.world.send(pair.ana, pair.world.submit(pair.ana, pair.bob.account, *mails[start : start + 64]))
    return numbers(pair)


def ack(pair: Pair, *which: int) -> list[int]:
    pair.world.send(pair.bob, pair.world.ack(pair.bob, *(pair.mails[number - 1] for number in which)))
    return numbers(pair)


class TestCredit:
    def test_never_more_is_under_way_than_the_credit(self) -> None:
        pair = a_pair(credit=2)
        assert send(pair, 5) == [1, 2]
        assert ack(pair, 1) == [3]
        assert ack(pair, 3, 2) == [4, 5]
        assert ack(pair, 4, 5) == []

    def test_credit_is_at_most_the_relays_own(self) -> None:
        pair = a_pair(CoreConfig(credit_max=3), credit=64)
        assert send(pair, 5) == [1, 2, 3]

    def test_never_more_bytes_are_under_way_than_allowed_but_for_one_envelope(self) -> None:
        pair = a_pair(CoreConfig(delivery_bytes_max=1_000))
        assert send(pair, 3, 450) == [1, 2]
        assert ack(pair, 1) == [3]
        assert ack(pair, 2, 3) == []
        assert send(pair, 2, 5_000) == [4]
        assert ack(pair, 4) == [5]

    def test_credit_zero_stops_delivery_and_credit_again_resumes_it(self) -> None:
        pair = a_pair(credit=0)
        world, bob = pair.world, pair.bob
        assert send(pair, 2) == []
        world.subscribe(bob, credit=1)
        assert numbers(pair) == [1]
        world.subscribe(bob, credit=0)
        assert ack(pair, 1) == []
        world.subscribe(bob, credit=5)
        assert numbers(pair) == [2]

    def test_backlog_is_read_in_portions_and_delivered_in_order(self) -> None:
        pair = a_pair(CoreConfig(read_bytes_max=2_000), credit=0)
        world, bob = pair.world, pair.bob
        send(pair, 20, 700)
        world.core.receive(bob.tag, bob.frame(_subscribe(pair, 20)), world.now_ms)
        world.commit_once()
        portions = []
        while reads := world.core.take_reads():
            portions.append(sum(len(read.seqs) for read in reads))
            world.core.loaded([(read, world.store.read(read.seqs)) for read in reads], world.now_ms)
        world.run()
        assert portions == [3, 3, 3, 3, 3, 3, 2]
        assert numbers(pair) == list(range(1, 21))

    def test_mailboxes_take_turns_at_reading(self) -> None:
        pair = a_pair(CoreConfig(read_bytes_max=1_000), credit=0)
        world, bob = pair.world, pair.bob
        cai = world.enrolled("cai", credit=0)
        send(pair, 4)
        world.send(pair.ana, world.submit(pair.ana, cai.account, *(world.mail(cai) for _ in range(4))))
        for device in (bob, cai):
            world.core.receive(device.tag, device.frame(_subscribe(Pair(world, pair.ana, device), 9)), world.now_ms)
        world.commit_once()
        turns = []
        while reads := world.core.take_reads():
            turns.append([read.mailbox for read in reads])
            world.core.loaded([(read, world.store.read(read.seqs)) for read in reads], world.now_ms)
        assert turns[:2] == [[bob.mailbox], [cai.mailbox]]


def _subscribe(pair: Pair, credit: int) -> Subscribe:
    return Subscribe(pair.bob.next_ref(), pair.bob.mailbox, 0, credit)


class TestCursor:
    def test_only_numbers_above_the_cursor_are_delivered(self) -> None:
        pair = a_pair(credit=0)
        send(pair, 4)
        pair.world.subscribe(pair.bob, after=2, credit=9)
        assert numbers(pair) == [3, 4]

    def test_moving_the_cursor_frees_the_credit_of_what_cannot_be_read(self) -> None:
        pair = a_pair(credit=2)
        assert send(pair, 4) == [1, 2]
        pair.world.subscribe(pair.bob, after=2, credit=2)
        assert numbers(pair) == [3, 4]
        pair.world.after(5_000)
        assert numbers(pair) == [3, 4]

    def test_subscribing_again_does_not_send_twice_what_is_under_way(self) -> None:
        pair = a_pair(credit=5)
        assert send(pair, 2) == [1, 2]
        pair.world.subscribe(pair.bob, credit=5)
        assert numbers(pair) == []
        pair.world.after(4_999)
        assert numbers(pair) == []
        pair.world.after(1)
        assert numbers(pair) == [1, 2]

    def test_new_link_gets_everything_again_once_it_subscribes(self) -> None:
        pair = a_pair()
        assert send(pair, 2) == [1, 2]
        pair.world.link(pair.bob)
        pair.world.after(70_000)
        assert numbers(pair) == []
        pair.world.subscribe(pair.bob)
        assert numbers(pair) == [1, 2]


class TestRepeats:
    def test_unacked_delivery_is_repeated_after_5_s_doubling_to_60_s(self) -> None:
        pair = a_pair()
        send(pair, 1)
        gaps, last_ms = [], pair.world.now_ms
        for _ in range(8):
            while not (got := numbers(pair)):
                deadline = pair.world.core.next_deadline()
                assert deadline is not None
                pair.world.after(deadline - pair.world.now_ms)
            assert got == [1]
            gaps.append(pair.world.now_ms - last_ms)
            last_ms = pair.world.now_ms
        assert gaps == [5_000, 10_000, 20_000, 40_000, 60_000, 60_000, 60_000, 60_000]
        assert (gaps[0], gaps[-1]) == (REDELIVERY_FIRST_MS, REDELIVERY_LAST_MS)

    def test_ack_resets_the_pause(self) -> None:
        pair = a_pair()
        send(pair, 2)
        for gap in (5_000, 10_000, 20_000):
            pair.world.after(gap)
            assert numbers(pair) == [1, 2]
        ack(pair, 1)
        pair.world.after(5_000)
        assert numbers(pair) == [2]

    def test_younger_deliveries_are_not_repeated_before_their_time(self) -> None:
        pair = a_pair()
        send(pair, 1)
        pair.world.after(3_000)
        send(pair, 1)
        pair.world.after(2_000)
        assert numbers(pair) == [1]

    def test_timer_of_what_was_acked_goes_on_to_what_was_not(self) -> None:
        pair = a_pair()
        send(pair, 1)
        pair.world.after(3_000)
        send(pair, 1)
        ack(pair, 1)
        pair.world.after(2_000)
        assert numbers(pair) == []
        assert pair.world.core.next_deadline() == pair.world.now_ms + 3_000
        pair.world.after(3_000)
        assert numbers(pair) == [2]

    def test_what_was_sent_while_the_clock_was_ahead_is_repeated_when_it_is_right_again(self) -> None:
        pair = a_pair()
        world = pair.world
        world.now_ms += 3_600_000
        assert send(pair, 2) == [1, 2]
        world.now_ms -= 3_600_000
        # Any packet tells the core, and so would a tick.
        world.subscribe(pair.ana)
        numbers(pair)
        world.after(5_000)
        assert numbers(pair) == [1, 2]
        world.after(9_000)
        assert numbers(pair) == []
        world.after(1_000)
        assert numbers(pair) == [1, 2]

    def test_timer_of_a_link_that_ended_is_no_deadline(self) -> None:
        pair = a_pair()
        send(pair, 1)
        pair.world.link(pair.bob)
        pair.world.after(10_000)
        deadline = pair.world.core.next_deadline()
        assert deadline is not None
        # Only the expiry of the envelope is left.
        assert deadline > pair.world.now_ms + 3_600_000

    def test_device_that_never_acks_is_only_probed(self) -> None:
        pair = a_pair(CoreConfig(redeliver_whole_times=2))
        send(pair, 3)
        for gap, expected in ((5_000, [1, 2, 3]), (10_000, [1, 2, 3]), (20_000, [1]), (40_000, [1]), (60_000, [1])):
            pair.world.after(gap)
            assert numbers(pair) == expected
        ack(pair, 1)
        pair.world.after(60_000)
        assert numbers(pair) == [2, 3]

    def test_withdrawn_delivery_is_not_repeated(self) -> None:
        pair = a_pair()
        send(pair, 1)
        pair.world.send(pair.ana, Withdraw(pair.ana.next_ref(), pair.bob.mailbox, (pair.mails[0].token,)))
        pair.world.after(60_000)
        assert numbers(pair) == []


class TestRaces:
    def reading(self) -> tuple[Pair, World]:
        pair = a_pair(credit=0)
        send(pair, 2)
        pair.world.core.receive(pair.bob.tag, pair.bob.frame(_subscribe(pair, 9)), pair.world.now_ms)
        pair.world.commit_once()
        return pair, pair.world

    def test_what_is_acked_while_it_is_read_is_not_delivered(self) -> None:
        pair, world = self.reading()
        reads = world.core.take_reads()
        bodies = [(read, world.store.read(read.seqs)) for read in reads]
        world.core.receive(pair.bob.tag, pair.bob.frame(world.ack(pair.bob, pair.mails[0])), world.now_ms)
        world.commit_once()
        world.core.loaded(bodies, world.now_ms)
        world.run()
        assert numbers(pair) == [2]
        assert world.core.counters.reads_missing == 0

    def test_what_is_read_while_the_commit_of_its_ack_is_under_way_is_not_delivered(self) -> None:
        pair, world = self.reading()
        bodies = [(read, world.store.read(read.seqs)) for read in world.core.take_reads()]
        world.core.receive(pair.bob.tag, pair.bob.frame(world.ack(pair.bob, pair.mails[0])), world.now_ms)
        batch = world.core.take_batch(world.now_ms)
        assert batch is not None
        world.core.loaded(bodies, world.now_ms)
        world.carry()
        assert numbers(pair) == [2]

    def test_what_is_read_for_a_link_that_was_replaced_is_thrown_away(self) -> None:
        pair, world = self.reading()
        bodies = [(read, world.store.read(read.seqs)) for read in world.core.take_reads()]
        world.link(pair.bob)
        world.core.loaded(bodies, world.now_ms)
        world.run()
        assert numbers(pair) == []
        world.subscribe(pair.bob)
        assert numbers(pair) == [1, 2]

    @pytest.mark.parametrize("while_it_is", ["read", "committed"])
    def test_what_expires_on_its_way_is_not_delivered(self, while_it_is: str) -> None:
        pair = a_pair(credit=9 if while_it_is == "committed" else 0)
        world, ana, bob = pair.world, pair.ana, pair.bob
        submit = world.submit(ana, bob.account, world.mail(bob, expiry=world.now_s + 90))
        world.core.receive(ana.tag, ana.frame(submit), world.now_ms)
        batch = world.core.take_batch(world.now_ms)
        assert batch is not None
        world.now_ms += 90_000 if while_it_is == "committed" else 0
        world.end(batch)
        if while_it_is == "read":
            world.core.receive(bob.tag, bob.frame(_subscribe(pair, 9)), world.now_ms)
            world.commit_once()
            bodies = [(read, world.store.read(read.seqs)) for read in world.core.take_reads()]
            assert len(bodies) == 1
            world.now_ms += 90_000
            world.core.loaded(bodies, world.now_ms)
        world.carry()
        assert numbers(pair) == []

    def test_body_that_the_store_does_not_have_is_counted(self) -> None:
        _pair, world = self.reading()
        reads = world.core.take_reads()
        world.core.loaded([(read, [None] * len(read.seqs)) for read in reads], world.now_ms)
        assert world.core.counters.reads_missing == 2

    def test_failed_ack_brings_the_delivery_back(self) -> None:
        pair = a_pair(credit=1)
        world, bob = pair.world, pair.bob
        assert send(pair, 2) == [1]
        world.fail = 1
        world.send(bob, world.ack(bob, *pair.mails))
        assert len(bob.refusals()) == 1
        assert numbers(pair) == []
        assert ack(pair, 1) == [2]

    def test_envelope_passed_over_while_its_erasure_was_under_way_comes_back_if_that_fails(self) -> None:
        pair = a_pair(credit=0)
        world, bob = pair.world, pair.bob
        send(pair, 2)
        world.core.receive(bob.tag, bob.frame(world.ack(bob, pair.mails[0]), _subscribe(pair, 9)), world.now_ms)
        batch = world.core.take_batch(world.now_ms)
        assert batch is not None
        world.read_once()
        world.carry()
        assert numbers(pair) == [2]
        world.fail = 1
        world.end(batch)
        world.run()
        assert numbers(pair) == [1]


def test_repeated_and_new_deliveries_of_a_frame_are_in_the_order_of_their_numbers() -> None:
    pair = a_pair()
    world, ana, bob = pair.world, pair.ana, pair.bob
    assert send(pair, 1) == [1]
    world.now_ms += 5_000
    world.core.tick(world.now_ms)
    world.core.receive(ana.tag, ana.frame(world.submit(ana, bob.account, world.mail(bob))), world.now_ms)
    world.commit_once()
    world.read_once()
    world.carry()
    (delivery,) = bob.take(Delivery)
    assert isinstance(delivery, Delivery)
    assert [item.number for item in delivery.envelopes] == [1, 2]


def test_deliveries_of_a_frame_are_one_command_for_each_mailbox() -> None:
    pair = a_pair()
    world, ana, bob = pair.world, pair.ana, pair.bob
    world.send(ana, world.submit(ana, bob.account, *(world.mail(bob) for _ in range(64))))
    (delivery,) = bob.take(Delivery)
    assert isinstance(delivery, Delivery)
    assert [item.number for item in delivery.envelopes] == list(range(1, 65))


@pytest.mark.parametrize("held_up", [True, False])
def test_expired_delivery_frees_its_credit(held_up: bool) -> None:
    pair = a_pair(credit=1)
    world, ana, bob = pair.world, pair.ana, pair.bob
    short, long = world.mail(bob, expiry=world.now_s + 30), world.mail(bob)
    world.send(ana, world.submit(ana, bob.account, short, long))
    assert numbers(pair) == [1]
    world.fail = 1 if held_up else 0
    world.after(90_000)
    if held_up:
        assert numbers(pair) == []
        world.after(1_000)
    assert numbers(pair) == [2]


def test_a_subscription_of_a_link_that_was_replaced_meanwhile_delivers_nothing() -> None:
    """It came while a commit was under way, and the new link before its batch: nothing may pile up for the old."""
    pair = a_pair(credit=0)
    world, ana, bob = pair.world, pair.ana, pair.bob
    world.core.receive(ana.tag, ana.frame(world.submit(ana, bob.account, world.mail(bob))), world.now_ms)
    batch = world.core.take_batch(world.now_ms)
    assert batch is not None
    stale = Subscribe(bob.next_ref(), bob.mailbox, 0, 64)
    world.core.receive(bob.tag, bob.frame(stale), world.now_ms)
    bob.pending = begin_hello(world.relay_id, bob.rng.randbytes)
    world.core.receive(bob.tag, bob.pending.packet, world.now_ms)
    world.carry()
    world.end(batch)
    world.run()
    before = world.core.counters.deliveries
    for _ in range(20):
        world.after(60_000)
    assert world.core.counters.deliveries == before == 0
    world.subscribe(bob)
    assert [item.number for item in bob.delivered()] == [1]
