"""Mailboxes (protocol.md sections 5, 6.3 and 9): numbers, idempotency, quotas, acks, tombstones, expiry, closing."""

from __future__ import annotations

import pytest

from relay.core import CoreConfig
from relay.core.mailboxes import tombstone_key
from relay.store.memory import MemoryStore
from tests.relay.world import HOUR_S, Device, Mail, Pair, World, a_pair, seeded
from wire.codec import encode
from wire.commands import Ack, PublishList, Submit, Withdraw
from wire.envelope import Envelope
from wire.errors import FormatError, RefusalCode
from wire.limits import CLOCK_SKEW_S, EXPIRY_S_MAX
from wire.receipt import commit_hash, verify_header

DAY_S = 86_400


def refused(device: Device) -> list[tuple[int, str]]:
    return [(item.code, item.field) for item in device.refusals()]


def memory(world: World) -> MemoryStore:
    assert isinstance(world.store, MemoryStore)
    return world.store


def changed(mail: Mail, body: bytes | None = None, expiry: int | None = None) -> Mail:
    old = mail.envelope
    body = body or bytes(len(old.body))
    return Mail(mail.token, Envelope(old.mailbox, old.envelope_id, expiry or old.expiry, body))


class TestNumbers:
    def test_numbers_count_from_one_in_each_mailbox(self) -> None:
        pair = a_pair()
        world, ana, bob = pair.world, pair.ana, pair.bob
        cai = world.enrolled("cai")
        for _ in range(3):
            world.send(ana, world.submit(ana, bob.account, world.mail(bob), world.mail(bob)))
            world.send(ana, world.submit(ana, cai.account, world.mail(cai)))
        assert [item.number for item in bob.delivered()] == [1, 2, 3, 4, 5, 6]
        assert [item.number for item in cai.delivered()] == [1, 2, 3]

    @pytest.mark.parametrize("gone", ["acked", "acked and expired", "expired"])
    def test_no_number_is_given_twice_even_after_a_restart(self, gone: str) -> None:
        pair = a_pair()
        world, ana, bob = pair.world, pair.ana, pair.bob
        mails = [world.mail(bob) for _ in range(3)]
        world.send(ana, world.submit(ana, bob.account, *mails))
        if gone.startswith("acked"):
            world.send(bob, world.ack(bob, *mails))
        if gone.endswith("expired"):
            world.after(25 * HOUR_S * 1_000)
            snapshot = world.store.load()
            assert not snapshot.envelopes
            assert not snapshot.tombstones
        world.restart()
        for device in (ana, bob):
            world.link(device)
        world.subscribe(bob)
        bob.inbox.clear()
        world.send(ana, world.submit(ana, bob.account, world.mail(bob)))
        assert [item.number for item in bob.delivered()] == [4]

    @pytest.mark.parametrize("steps_h", [[25, 50], [50]])
    def test_number_stays_given_when_a_lower_one_expires_later(self, steps_h: list[int]) -> None:
        pair = a_pair(credit=0)
        world, ana, bob = pair.world, pair.ana, pair.bob
        mails = [world.mail(bob, expiry=world.now_s + hours * HOUR_S) for hours in (40, 20)]
        world.send(ana, world.submit(ana, bob.account, *mails))
        start_ms = world.now_ms
        for hours in steps_h:
            world.after(start_ms + hours * HOUR_S * 1_000 - world.now_ms)
        assert [row.newest for row in memory(world).mailboxes.values() if row.mailbox == bob.mailbox] == [2]
        world.restart()
        world.link(ana)
        world.send(ana, world.submit(ana, bob.account, world.mail(bob)))
        assert [row.number for row in memory(world).envelopes.values()] == [3]


class TestIdempotency:
    @pytest.mark.parametrize("when", ["in the same batch", "while it is committed", "later", "after a restart"])
    @pytest.mark.parametrize("acked", [False, True])
    def test_the_same_submit_again_gets_the_same_receipt(self, when: str, acked: bool) -> None:
        pair = a_pair()
        world, ana, bob = pair.world, pair.ana, pair.bob
        mails = [world.mail(bob) for _ in range(3)]
        first = world.submit(ana, bob.account, *mails)
        again = Submit(ana.next_ref(), first.account, first.list_hash, first.envelopes)
        world.core.receive(ana.tag, ana.frame(first), world.now_ms)
        if when == "in the same batch":
            world.core.receive(ana.tag, ana.frame(again), world.now_ms)
        batch = world.core.take_batch(world.now_ms)
        assert batch is not None
        if when == "while it is committed":
            world.core.receive(ana.tag, ana.frame(again), world.now_ms)
            assert not world.core.take_packets()
        world.end(batch)
        if acked:
            world.core.receive(bob.tag, bob.frame(world.ack(bob, *mails)), world.now_ms)
        world.run()
        if when == "after a restart":
            world.restart()
        if when in {"later", "after a restart"}:
            world.send(ana, world.submit(ana, bob.account, world.mail(bob))) if when == "later" else None
            if when == "after a restart":
                receipts_before = ana.receipts()
                world.link(ana)
                ana.inbox[:0] = receipts_before
            world.send(ana, again)
        received = ana.receipts()
        one, two = (world.check_receipts(submit, received) for submit in (first, again))
        assert one == two
        assert set(one) == {0, 1, 2}
        assert len(memory(world).envelopes) == (0 if acked else 3) + (1 if when == "later" else 0)

    @pytest.mark.parametrize("state", ["staged", "live", "acked"])
    @pytest.mark.parametrize("what", ["body", "expiry"])
    def test_attack_same_id_with_other_content_is_a_conflict(self, state: str, what: str) -> None:
        pair = a_pair()
        world, ana, bob = pair.world, pair.ana, pair.bob
        mail = world.mail(bob)
        other = changed(mail, expiry=mail.envelope.expiry + HOUR_S, body=mail.envelope.body)
        if what == "body":
            other = changed(mail)
        frame = [world.submit(ana, bob.account, mail)]
        if state == "staged":
            frame.append(world.submit(ana, bob.account, other, world.mail(bob)))
        world.send(ana, *frame)
        if state == "acked":
            world.send(bob, world.ack(bob, mail))
        if state != "staged":
            world.send(ana, world.submit(ana, bob.account, other, world.mail(bob)))
        assert refused(ana) == [(RefusalCode.CONFLICT, "envelope_id")]
        # Refused whole: neither is the other envelope of that submit stored.
        assert len(memory(world).envelopes) == (0 if state == "acked" else 1)

    def test_same_id_in_another_mailbox_is_another_envelope(self) -> None:
        pair = a_pair()
        world, ana, bob = pair.world, pair.ana, pair.bob
        cai = world.enrolled("cai")
        token = seeded("shared")[:16]
        for device in (bob, cai):
            world.send(ana, world.submit(ana, device.account, world.mail(device, token=token)))
        assert not ana.refusals()
        assert len(bob.delivered()) == len(cai.delivered()) == 1

    def test_one_envelope_twice_in_a_submit_is_malformed(self) -> None:
        pair = a_pair()
        world, ana, bob = pair.world, pair.ana, pair.bob
        mail = world.mail(bob)
        world.send(ana, world.submit(ana, bob.account, mail, mail))
        assert refused(ana) == [(RefusalCode.MALFORMED, "envelopes: one is there twice")]
        assert not memory(world).envelopes

    def test_submit_with_old_and_new_envelopes_gets_receipts_of_both_commits(self) -> None:
        pair = a_pair()
        world, ana, bob = pair.world, pair.ana, pair.bob
        old, new = world.mail(bob), world.mail(bob)
        world.send(ana, world.submit(ana, bob.account, old))
        ana.inbox.clear()
        both = world.submit(ana, bob.account, new, old)
        world.send(ana, both)
        received = ana.receipts()
        assert len(received) == 2
        assert {position: one.number for position, one in world.check_receipts(both, received).items()} == {0: 2, 1: 1}
        assert len(bob.delivered()) == 2

    def test_receipts_of_old_commits_are_paid_for(self) -> None:
        pair = a_pair(CoreConfig(link_work_burst=10, link_work_per_s=1))
        world, ana, bob = pair.world, pair.ana, pair.bob
        submit = world.submit(ana, bob.account, *(world.mail(bob) for _ in range(4)))
        world.now_ms += 10_000
        for _ in range(4):
            world.send(ana, submit)
        # The first stored it, two were paid for, the last one found 2 of 4 tokens.
        assert refused(ana) == [(RefusalCode.LINK_QUOTA, "work")]


class TestSubmit:
    def test_stale_list_is_refused_whole_with_the_current_one(self) -> None:
        pair = a_pair()
        world, ana, bob = pair.world, pair.ana, pair.bob
        stale = world.submit(ana, bob.account, world.mail(bob))
        tablet = world.device("tablet", bob.account)
        world.send(bob, PublishList(bob.next_ref(), world.next_list(bob.account, bob, tablet)))
        world.send(ana, stale)
        (refusal,) = ana.refusals()
        assert (refusal.ref, refusal.code, refusal.field) == (stale.ref, RefusalCode.STALE_LIST, "list_hash")
        assert refusal.attachment == encode(world.lists[bob.account][1])
        assert not memory(world).envelopes
        world.send(ana, world.submit(ana, bob.account, world.mail(bob), world.mail(tablet)))
        assert not ana.refusals()
        assert len(memory(world).envelopes) == 2

    def test_submit_that_was_stored_before_its_list_went_stale_gets_its_receipts(self) -> None:
        pair = a_pair()
        world, ana, bob = pair.world, pair.ana, pair.bob
        tablet = world.device("tablet", bob.account)
        world.send(bob, PublishList(bob.next_ref(), world.next_list(bob.account, bob, tablet)))
        submit = world.submit(ana, bob.account, world.mail(bob), world.mail(tablet))
        world.send(ana, submit)
        first = world.check_receipts(submit, ana.receipts())
        world.send(bob, PublishList(bob.next_ref(), world.next_list(bob.account, bob)))
        world.send(ana, submit)
        assert world.check_receipts(submit, ana.receipts()) == first
        partly = Submit(ana.next_ref(), bob.account, submit.list_hash, (*submit.envelopes, world.mail(bob).envelope))
        world.send(ana, partly)
        assert refused(ana) == [(RefusalCode.STALE_LIST, "list_hash")]

    def test_attack_stale_submit_gets_no_receipts_for_the_mailbox_of_another_account(self) -> None:
        pair = a_pair()
        world, ana, bob = pair.world, pair.ana, pair.bob
        cai = world.enrolled("cai")
        mail = world.mail(cai)
        world.send(ana, world.submit(ana, cai.account, mail))
        ana.inbox.clear()
        world.send(ana, Submit(ana.next_ref(), bob.account, bytes(32), (mail.envelope,)))
        assert refused(ana) == [(RefusalCode.STALE_LIST, "list_hash")]
        assert not ana.receipts()

    def test_mailbox_that_is_not_on_the_list_is_refused_as_one_that_does_not_exist(self) -> None:
        pair = a_pair()
        world, ana, bob = pair.world, pair.ana, pair.bob
        cai = world.enrolled("cai")
        ghost = world.device("ghost")
        for device in (cai, ghost):
            world.send(ana, world.submit(ana, bob.account, world.mail(bob), world.mail(device)))
        one, two = ana.refusals()
        assert (one.code, one.field, one.limit) == (two.code, two.field, two.limit)
        assert one.code == RefusalCode.NOT_ENTITLED
        assert not memory(world).envelopes

    def test_copies_to_the_senders_own_other_devices_go_along(self) -> None:
        pair = a_pair()
        world, ana, bob = pair.world, pair.ana, pair.bob
        tablet = world.device("tablet", ana.account)
        world.send(ana, PublishList(ana.next_ref(), world.next_list(ana.account, ana, tablet)))
        world.send(ana, world.submit(ana, bob.account, world.mail(bob), world.mail(tablet)))
        assert not ana.refusals()
        assert len(memory(world).envelopes) == 2

    def test_unknown_account_is_told_to_enrolled_devices(self) -> None:
        pair = a_pair()
        world, ana, bob = pair.world, pair.ana, pair.bob
        submit = world.submit(ana, bob.account, world.mail(bob))
        world.send(ana, Submit(submit.ref, "nobody@acme.example", submit.list_hash, submit.envelopes))
        assert refused(ana) == [(RefusalCode.UNKNOWN_ACCOUNT, "account")]

    @pytest.mark.parametrize(
        ("seconds", "accepted"),
        [
            (0, False),
            (1, True),
            (-1, False),
            (EXPIRY_S_MAX + CLOCK_SKEW_S, True),
            (EXPIRY_S_MAX + CLOCK_SKEW_S + 1, False),
        ],
    )
    def test_expiry_lies_ahead_and_at_most_thirty_days(self, seconds: int, accepted: bool) -> None:
        pair = a_pair()
        world, ana, bob = pair.world, pair.ana, pair.bob
        world.send(ana, world.submit(ana, bob.account, world.mail(bob, expiry=world.now_s + seconds)))
        assert refused(ana) == ([] if accepted else [(RefusalCode.EXPIRY_INVALID, "expiry")])
        assert len(memory(world).envelopes) == accepted


class TestQuotas:
    def test_envelopes_and_tombstones_of_a_mailbox_are_bounded(self) -> None:
        pair = a_pair(CoreConfig(mailbox_envelopes_max=3))
        world, ana, bob = pair.world, pair.ana, pair.bob
        mails = [world.mail(bob) for _ in range(3)]
        world.send(ana, world.submit(ana, bob.account, *mails[:2]))
        world.send(ana, world.submit(ana, bob.account, world.mail(bob), world.mail(bob)))
        (refusal,) = ana.refusals()
        assert (refusal.code, refusal.field, refusal.limit) == (RefusalCode.MAILBOX_FULL, "envelopes", 3)
        assert refusal.retry_after_ms > 0
        world.send(ana, world.submit(ana, bob.account, mails[2]))
        world.send(bob, world.ack(bob, *mails))
        # Tombstones count: an ack makes room for bytes, expiry for envelopes.
        again = world.submit(ana, bob.account, world.mail(bob))
        world.send(ana, again)
        assert refused(ana) == [(RefusalCode.MAILBOX_FULL, "envelopes")]
        world.after(25 * HOUR_S * 1_000)
        world.send(ana, world.submit(ana, bob.account, world.mail(bob)))
        assert not ana.refusals()

    def test_bytes_of_a_mailbox_are_bounded_and_freed_by_acks(self) -> None:
        pair = a_pair(CoreConfig(mailbox_bytes_max=2_000, tombstone_bytes=100))
        world, ana, bob = pair.world, pair.ana, pair.bob
        first = world.mail(bob, 1_500)
        world.send(ana, world.submit(ana, bob.account, first))
        second = world.submit(ana, bob.account, world.mail(bob, 501))
        world.send(ana, second)
        (refusal,) = ana.refusals()
        assert (refusal.code, refusal.field, refusal.limit) == (RefusalCode.MAILBOX_FULL, "bytes", 2_000)
        world.send(bob, world.ack(bob, first))
        world.send(ana, world.submit(ana, bob.account, world.mail(bob, 1_900)))
        assert not ana.refusals()
        world.send(ana, world.submit(ana, bob.account, world.mail(bob, 400)))
        assert refused(ana) == [(RefusalCode.MAILBOX_FULL, "bytes")]

    def test_quotas_are_the_same_after_a_restart(self) -> None:
        pair = a_pair(CoreConfig(mailbox_envelopes_max=2))
        world, ana, bob = pair.world, pair.ana, pair.bob
        mails = [world.mail(bob) for _ in range(2)]
        world.send(ana, world.submit(ana, bob.account, *mails))
        world.send(bob, world.ack(bob, mails[0]))
        world.restart()
        world.link(ana)
        world.send(ana, world.submit(ana, bob.account, world.mail(bob)))
        assert refused(ana) == [(RefusalCode.MAILBOX_FULL, "envelopes")]


class TestAck:
    def stored(self, count: int = 2) -> tuple[Pair, list[Mail]]:
        pair = a_pair()
        mails = [pair.world.mail(pair.bob) for _ in range(count)]
        pair.world.send(pair.ana, pair.world.submit(pair.ana, pair.bob.account, *mails))
        pair.bob.inbox.clear()
        pair.ana.inbox.clear()
        return pair, mails

    def test_ack_erases_one_and_leaves_a_tombstone_that_names_no_envelope(self) -> None:
        pair, mails = self.stored()
        pair.world.send(pair.bob, pair.world.ack(pair.bob, mails[0]))
        store = memory(pair.world)
        assert [row.envelope_id for row in store.envelopes.values()] == [mails[1].envelope.envelope_id]
        (stone,) = store.tombstones.values()
        assert stone.key == tombstone_key(pair.bob.mailbox, mails[0].envelope.envelope_id)
        assert (stone.token, stone.reason, stone.number, stone.leaf) == (mails[0].token, 1, 1, 0)
        assert stone.expiry == mails[0].envelope.expiry

    @pytest.mark.parametrize("when", ["in the same batch", "later", "while it is committed", "after a restart"])
    def test_ack_again_is_done_again(self, when: str) -> None:
        pair, mails = self.stored()
        world, bob = pair.world, pair.bob
        acks = [world.ack(bob, mails[0]) for _ in range(2)]
        world.core.receive(bob.tag, bob.frame(acks[0]), world.now_ms)
        if when == "in the same batch":
            world.core.receive(bob.tag, bob.frame(acks[1]), world.now_ms)
        batch = world.core.take_batch(world.now_ms)
        assert batch is not None
        if when == "while it is committed":
            world.core.receive(bob.tag, bob.frame(acks[1]), world.now_ms)
        assert not world.core.take_packets()
        world.end(batch)
        world.run()
        done = bob.done()
        if when == "after a restart":
            world.restart()
            world.link(bob)
        if when in {"later", "after a restart"}:
            world.send(bob, acks[1])
        assert done + bob.done() == [ack.ref for ack in acks]
        assert len(memory(world).tombstones) == 1

    def test_ack_of_what_is_not_there_is_done(self) -> None:
        pair, _mails = self.stored()
        pair.world.send(pair.bob, Ack(77, pair.bob.mailbox, (seeded("never")[:16],)))
        assert pair.bob.done() == [77]
        assert len(memory(pair.world).envelopes) == 2

    def test_attack_foreign_ack_is_refused_as_for_a_mailbox_that_does_not_exist(self) -> None:
        pair, mails = self.stored()
        tokens = (mails[0].token,)
        pair.world.send(pair.ana, Ack(1, pair.bob.mailbox, tokens), Ack(2, bytes(16), tokens))
        one, two = pair.ana.refusals()
        assert (one.code, one.field) == (two.code, two.field) == (RefusalCode.NOT_ENTITLED, "mailbox")
        assert len(memory(pair.world).envelopes) == 2

    def test_attack_guessed_token_erases_nothing(self) -> None:
        pair, mails = self.stored()
        guesses = tuple(seeded(f"guess {index}")[:16] for index in range(256))
        envelope_id_as_token = (mails[0].envelope.envelope_id,)
        pair.world.send(pair.bob, Ack(1, pair.bob.mailbox, guesses), Ack(2, pair.bob.mailbox, envelope_id_as_token))
        assert pair.bob.done() == [1, 2]
        assert len(memory(pair.world).envelopes) == 2

    def test_withdrawal_by_whoever_knows_the_token_and_is_enrolled(self) -> None:
        pair, mails = self.stored()
        world, ana = pair.world, pair.ana
        eve = world.device("eve")
        world.link(eve)
        eve.inbox.clear()
        world.send(eve, Withdraw(1, pair.bob.mailbox, (mails[0].token,)))
        assert refused(eve) == [(RefusalCode.NOT_ENTITLED, "link")]
        world.send(ana, Withdraw(2, pair.bob.mailbox, (mails[0].token,)))
        assert ana.done() == [2]
        (stone,) = memory(world).tombstones.values()
        assert (stone.reason, stone.token) == (2, mails[0].token)
        assert world.core.counters.withdrawals == 1

    def test_withdrawal_does_not_tell_whether_a_mailbox_exists(self) -> None:
        pair, _mails = self.stored()
        tokens = (seeded("guess")[:16],)
        pair.world.send(pair.ana, Withdraw(1, pair.bob.mailbox, tokens), Withdraw(2, bytes(16), tokens))
        assert pair.ana.done() == [1, 2]
        assert not pair.ana.refusals()

    def test_withdrawal_in_the_frame_of_the_submit_takes_it_back_one_commit_later(self) -> None:
        pair, _mails = self.stored()
        world, ana, bob = pair.world, pair.ana, pair.bob
        mail = world.mail(bob)
        submit = world.submit(ana, bob.account, mail)
        withdraw = Withdraw(ana.next_ref(), bob.mailbox, (mail.token,))
        world.send(ana, submit, withdraw)
        assert set(world.check_receipts(submit, ana.receipts())) == {0}
        assert ana.done() == [withdraw.ref]
        assert [row.reason for row in memory(world).tombstones.values()] == [2]


class TestExpiry:
    def test_envelope_is_erased_at_its_expiry_without_a_tombstone(self) -> None:
        pair = a_pair()
        world, ana, bob = pair.world, pair.ana, pair.bob
        expiry = world.now_s + 3 * HOUR_S
        world.send(ana, world.submit(ana, bob.account, world.mail(bob, expiry=expiry)))
        world.after(3 * HOUR_S * 1_000 - 1)
        assert len(memory(world).envelopes) == 1
        world.after(1)
        assert not memory(world).envelopes
        assert not memory(world).tombstones
        assert world.core.counters.expired == 1
        assert world.core.counters.envelopes_held == 0

    def test_next_deadline_names_the_expiry(self) -> None:
        pair = a_pair(credit=0)
        world, ana, bob = pair.world, pair.ana, pair.bob
        world.after(10_000)
        assert world.core.next_deadline() is None
        world.send(ana, world.submit(ana, bob.account, world.mail(bob, expiry=world.now_s + 61)))
        deadline = world.core.next_deadline()
        assert deadline is not None
        assert world.now_ms + 61_000 <= deadline <= world.now_ms + 121_000

    def test_expiry_goes_in_bounded_portions(self) -> None:
        pair = a_pair(CoreConfig(batch_erasures_max=10), credit=0)
        world, ana, bob = pair.world, pair.ana, pair.bob
        for _ in range(5):
            world.send(ana, world.submit(ana, bob.account, *(world.mail(bob) for _ in range(5))))
        world.now_ms += 25 * HOUR_S * 1_000
        world.core.tick(world.now_ms)
        portions = []
        while world.core.has_work():
            batch = world.core.take_batch(world.now_ms)
            assert batch is not None
            portions.append(len(batch.envelopes_erased))
            world.end(batch)
        assert portions == [10, 10, 5]

    def test_what_is_past_its_expiry_is_not_delivered(self) -> None:
        pair = a_pair(credit=0)
        world, ana, bob = pair.world, pair.ana, pair.bob
        world.send(ana, world.submit(ana, bob.account, world.mail(bob, expiry=world.now_s + 5)))
        world.now_ms += 5_000
        world.subscribe(bob)
        assert not bob.delivered()

    def test_late_retry_after_expiry_is_refused_by_its_expiry(self) -> None:
        pair = a_pair()
        world, ana, bob = pair.world, pair.ana, pair.bob
        submit = world.submit(ana, bob.account, world.mail(bob))
        world.send(ana, submit)
        world.after(25 * HOUR_S * 1_000)
        world.send(ana, submit)
        assert refused(ana) == [(RefusalCode.EXPIRY_INVALID, "expiry")]


class TestClosing:
    def test_mailbox_that_the_next_list_does_not_name_is_closed_and_emptied(self) -> None:
        pair = a_pair(CoreConfig(batch_erasures_max=2))
        world, ana, bob = pair.world, pair.ana, pair.bob
        tablet = world.device("tablet", bob.account)
        world.send(bob, PublishList(bob.next_ref(), world.next_list(bob.account, bob, tablet)))
        world.link(tablet)
        world.subscribe(tablet, credit=2)
        for _ in range(5):
            world.send(ana, world.submit(ana, bob.account, world.mail(bob), world.mail(tablet)))
        assert len(tablet.delivered()) == 2
        world.send(bob, PublishList(bob.next_ref(), world.next_list(bob.account, bob)))
        store = memory(world)
        assert {row.mailbox for row in store.envelopes.values()} == {bob.mailbox}
        assert [(row.mailbox, row.reason, row.token) for row in store.tombstones.values()] == [
            (tablet.mailbox, 4, b"")
        ] * 5
        assert [row.closed for row in store.mailboxes.values() if row.mailbox == tablet.mailbox] == [1]
        tablet.inbox.clear()
        world.send(tablet, Ack(1, tablet.mailbox, (bytes(16),)))
        assert refused(tablet) == [(RefusalCode.NOT_ENTITLED, "mailbox")]
        world.after(60_000)
        assert not tablet.delivered()

    def test_attack_removed_device_is_delivered_nothing_while_its_mailbox_is_emptied(self) -> None:
        pair = a_pair(CoreConfig(batch_erasures_max=1), credit=0)
        world, ana, bob = pair.world, pair.ana, pair.bob
        tablet = world.device("tablet", bob.account)
        world.send(bob, PublishList(bob.next_ref(), world.next_list(bob.account, bob, tablet)))
        world.link(tablet)
        world.subscribe(tablet, credit=2)
        world.send(ana, world.submit(ana, bob.account, *(world.mail(tablet) for _ in range(3))))
        assert len(tablet.delivered()) == 2
        removal = PublishList(bob.next_ref(), world.next_list(bob.account, bob))
        world.core.receive(bob.tag, bob.frame(removal), world.now_ms)
        world.commit_once()
        world.now_ms += 5_000
        world.core.tick(world.now_ms)
        world.read_once()
        world.carry()
        assert len(memory(world).envelopes) == 3
        assert not tablet.delivered()

    def test_closing_goes_on_after_a_restart(self) -> None:
        pair = a_pair(CoreConfig(batch_erasures_max=1), credit=0)
        world, ana, bob = pair.world, pair.ana, pair.bob
        tablet = world.device("tablet", bob.account)
        world.send(bob, PublishList(bob.next_ref(), world.next_list(bob.account, bob, tablet)))
        world.send(ana, world.submit(ana, bob.account, *(world.mail(tablet) for _ in range(3))))
        world.core.receive(
            bob.tag, bob.frame(PublishList(bob.next_ref(), world.next_list(bob.account, bob))), world.now_ms
        )
        world.commit_once()
        assert len(memory(world).envelopes) == 3
        world.restart()
        world.run()
        assert not memory(world).envelopes
        assert len(memory(world).tombstones) == 3


class TestPruning:
    def test_commits_older_than_all_that_is_held_go_and_the_last_one_stays(self) -> None:
        pair = a_pair()
        world, ana, bob = pair.world, pair.ana, pair.bob
        for _ in range(5):
            world.send(ana, world.submit(ana, bob.account, world.mail(bob)))
        kept = world.mail(bob, expiry=world.now_s + 100 * HOUR_S)
        world.send(ana, world.submit(ana, bob.account, kept))
        world.after(25 * HOUR_S * 1_000)
        submit = world.submit(ana, bob.account, world.mail(bob))
        world.send(ana, submit)
        assert sorted(memory(world).commits) == [6, 7]
        world.after(200 * HOUR_S * 1_000)
        world.send(ana, world.submit(ana, bob.account, world.mail(bob)))
        world.restart()
        world.link(ana)
        ana.inbox.clear()
        after = world.submit(ana, bob.account, world.mail(bob))
        world.send(ana, after)
        world.check_receipts(after, ana.receipts())
        assert sorted(memory(world).commits)[-1] == 9

    def test_last_commit_stays_though_nothing_is_held_of_it(self) -> None:
        pair = a_pair()
        world, ana, bob = pair.world, pair.ana, pair.bob
        world.send(ana, world.submit(ana, bob.account, world.mail(bob)))
        world.after(25 * HOUR_S * 1_000)
        world.core.admit_tenant("globex.example", seeded("globex"))
        world.run()
        head = memory(world).commits[1]
        world.restart()
        world.link(ana)
        world.send(ana, world.submit(ana, bob.account, world.mail(bob)))
        row = memory(world).commits[2]
        header = verify_header(world.relay_key.public, row.header, row.signature)
        assert header.previous == commit_hash(head.header)

    def test_used_tokens_past_their_date_go(self) -> None:
        pair = a_pair()
        world, ana, bob = pair.world, pair.ana, pair.bob
        assert len(memory(world).used_tokens) == 2
        world.after(2 * HOUR_S * 1_000)
        world.send(ana, world.submit(ana, bob.account, world.mail(bob)))
        assert not memory(world).used_tokens


class TestLoading:
    def broken(self, breaks: str) -> World:
        pair = a_pair()
        world, ana, bob = pair.world, pair.ana, pair.bob
        mails = [world.mail(bob) for _ in range(2)]
        world.send(ana, world.submit(ana, bob.account, *mails))
        world.send(bob, world.ack(bob, mails[0]))
        getattr(memory(world), breaks).clear()
        return world

    @pytest.mark.parametrize("breaks", ["mailboxes", "commits"])
    def test_store_that_contradicts_itself_is_refused(self, breaks: str) -> None:
        world = self.broken(breaks)
        with pytest.raises(FormatError, match="not there"):
            world.restart()
