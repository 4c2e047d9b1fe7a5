"""Preservation: expiry and deletion stop for a mailbox, acknowledgements count, and it all ends when the order does."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from relay.core import CoreConfig
from relay.core.preservation import read_statement, statement
from tests.relay.world import HOUR_S, Mail, Pair, a_pair
from wire.commands import PublishList, Withdraw
from wire.errors import FormatError

DAY_S = 86_400


def preserved(count: int = 2, days: int = 60, config: CoreConfig | None = None) -> tuple[Pair, list[Mail]]:
    pair = a_pair(config) if config else a_pair()
    world = pair.world
    mails = [world.mail(pair.bob) for _ in range(count)]
    world.send(pair.ana, world.submit(pair.ana, pair.bob.account, *mails))
    pair.bob.delivered()
    world.core.preserve((pair.bob.mailbox,), world.now_s + days * DAY_S, 7)
    world.run()
    return pair, mails


def rows(pair: Pair) -> tuple[int, int]:
    snapshot = pair.world.store.load()
    return len(snapshot.envelopes), len(snapshot.tombstones)


def test_an_acknowledged_row_stays_and_is_not_delivered_again() -> None:
    pair, mails = preserved()
    pair.world.send(pair.bob, pair.world.ack(pair.bob, mails[0]))
    assert pair.bob.done()
    assert rows(pair) == (2, 1)
    pair.world.restart()
    pair.world.link(pair.bob)
    pair.world.subscribe(pair.bob)
    assert [item.envelope_id for item in pair.bob.delivered()] == [mails[1].envelope.envelope_id]
    assert rows(pair) == (2, 1)


def test_a_withdrawn_row_stays() -> None:
    pair, mails = preserved()
    pair.world.send(pair.ana, Withdraw(pair.ana.next_ref(), pair.bob.mailbox, (mails[0].token,)))
    assert rows(pair) == (2, 1)


def test_what_expires_meanwhile_stays_and_goes_when_the_order_ends() -> None:
    pair, mails = preserved(days=60)
    pair.world.send(pair.bob, pair.world.ack(pair.bob, mails[0]))
    pair.world.after(59 * DAY_S * 1_000)
    assert rows(pair) == (2, 1)
    pair.world.after(2 * DAY_S * 1_000)
    assert rows(pair) == (0, 0)
    assert set(pair.world.store.load().relay) == {"relay_id", "partition", "format"}


def test_all_ends_as_well_after_a_restart() -> None:
    pair, mails = preserved(days=60)
    pair.world.send(pair.bob, pair.world.ack(pair.bob, mails[0]))
    pair.world.after(31 * DAY_S * 1_000)
    pair.world.restart()
    assert rows(pair) == (2, 1)
    pair.world.after(30 * DAY_S * 1_000)
    assert rows(pair) == (0, 0)


def test_another_mailbox_expires_as_always() -> None:
    pair, _ = preserved()
    world = pair.world
    cai = world.enrolled("cai")
    world.send(pair.ana, world.submit(pair.ana, cai.account, world.mail(cai)))
    world.after(31 * DAY_S * 1_000)
    assert {row.mailbox for row in world.store.load().envelopes} == {pair.bob.mailbox}


def test_an_extension_replaces_the_end_and_a_shorter_one_does_not() -> None:
    pair, _ = preserved(days=60)
    start_s = pair.world.now_s
    for days in (90, 10):
        pair.world.core.preserve((pair.bob.mailbox,), start_s + days * DAY_S, 9)
        pair.world.run()
    held = read_statement(pair.bob.mailbox.hex(), pair.world.store.load().relay[pair.bob.mailbox.hex()])[1]
    assert (held.until_s, held.leaf) == (start_s + 90 * DAY_S, 9)


def test_a_failed_commit_preserves_nothing_and_the_next_does() -> None:
    pair = a_pair()
    world = pair.world
    world.core.preserve((pair.bob.mailbox,), world.now_s + DAY_S, 7)
    world.fail = 1
    world.run()
    assert pair.bob.mailbox.hex() not in world.store.load().relay
    world.after(2_000)
    assert pair.bob.mailbox.hex() in world.store.load().relay


def test_a_closed_mailbox_keeps_its_mail_until_the_order_ends() -> None:
    pair = a_pair()
    world, bob = pair.world, pair.bob
    tablet = world.device("tablet", bob.account)
    world.send(bob, PublishList(bob.next_ref(), world.next_list(bob.account, bob, tablet)))
    world.send(pair.ana, world.submit(pair.ana, bob.account, world.mail(bob), world.mail(tablet)))
    world.core.preserve((tablet.mailbox,), world.now_s + 60 * DAY_S, 7)
    world.run()
    world.send(bob, PublishList(bob.next_ref(), world.next_list(bob.account, bob)))
    assert tablet.mailbox in {row.mailbox for row in world.store.load().envelopes}
    world.restart()
    world.after(59 * DAY_S * 1_000)
    assert tablet.mailbox in {row.mailbox for row in world.store.load().envelopes}
    world.after(2 * DAY_S * 1_000)
    assert rows(pair) == (0, 0)


def test_what_was_kept_is_erased_in_bounded_portions() -> None:
    pair, mails = preserved(5, config=CoreConfig(batch_erasures_max=2))
    pair.world.send(pair.bob, pair.world.ack(pair.bob, *mails))
    assert rows(pair) == (5, 5)
    pair.world.after(61 * DAY_S * 1_000)
    assert rows(pair) == (0, 0)


def test_a_mailbox_that_is_not_there_cannot_be_preserved() -> None:
    pair = a_pair()
    with pytest.raises(FormatError, match="not there"):
        pair.world.core.preserve((bytes(16),), pair.world.now_s + HOUR_S, 1)


@pytest.mark.parametrize(
    "bend",
    [
        lambda name, value: (name.upper(), value),
        lambda name, value: ("zz" * 16, value),
        lambda name, value: (name[:-2], value),
        lambda name, value: (name, value[:-1]),
    ],
)
def test_a_row_that_states_nothing_is_refused(bend: Callable[[str, bytes], tuple[str, bytes]]) -> None:
    with pytest.raises(FormatError):
        read_statement(*bend(*statement(b"\xab" * 16, 5, 6)))


def released(pair: Pair, leaf: int, instead: dict[bytes, tuple[int, int]] | None = None) -> None:
    pair.world.core.release(leaf, instead or {})
    pair.world.run()


def test_a_preservation_that_is_taken_back_erases_what_it_kept_and_lets_the_rest_expire() -> None:
    pair, mails = preserved(3, days=60)
    pair.world.send(pair.bob, pair.world.ack(pair.bob, mails[0]))
    released(pair, 7)
    assert rows(pair) == (2, 1)
    assert pair.world.core.preserving() == frozenset()
    assert set(pair.world.store.load().relay) == {"relay_id", "partition", "format"}
    pair.world.send(pair.bob, pair.world.ack(pair.bob, mails[1]))
    assert rows(pair) == (1, 2), "deletion goes on"
    pair.world.after(31 * DAY_S * 1_000)
    assert rows(pair) == (0, 0)


def test_taking_back_one_order_ends_no_other() -> None:
    pair, mails = preserved(days=60)
    pair.world.send(pair.bob, pair.world.ack(pair.bob, mails[0]))
    released(pair, 8)
    assert rows(pair) == (2, 1)
    assert pair.world.core.preserving() == {7}


def test_where_another_order_stands_it_goes_on_under_that_one() -> None:
    pair, mails = preserved(days=60)
    pair.world.send(pair.bob, pair.world.ack(pair.bob, mails[0]))
    until_s = pair.world.now_s + 40 * DAY_S
    released(pair, 7, {pair.bob.mailbox: (until_s, 9)})
    assert rows(pair) == (2, 1)
    assert pair.world.core.preserving() == {9}
    pair.world.restart()
    pair.world.after(39 * DAY_S * 1_000)
    assert rows(pair) == (2, 1)
    pair.world.after(2 * DAY_S * 1_000)
    assert rows(pair) == (0, 0)


def test_a_crash_while_what_was_kept_is_erased_does_not_preserve_it_again() -> None:
    pair, mails = preserved(5, config=CoreConfig(batch_erasures_max=2))
    pair.world.send(pair.bob, pair.world.ack(pair.bob, *mails))
    pair.world.core.release(7, {})
    batch = pair.world.core.take_batch(pair.world.now_ms)
    assert batch is not None
    pair.world.store.commit(batch)
    assert rows(pair) == (3, 5)
    pair.world.restart()
    pair.world.after(1_000)
    assert rows(pair)[0] == 0


def test_a_failed_commit_takes_nothing_back_and_the_next_does() -> None:
    pair, mails = preserved()
    pair.world.send(pair.bob, pair.world.ack(pair.bob, mails[0]))
    pair.world.fail = 1
    released(pair, 7)
    assert rows(pair) == (2, 1)
    assert pair.world.core.preserving() == {7}
    pair.world.after(2_000)
    assert rows(pair) == (1, 1)


def test_what_is_asked_twice_before_a_batch_is_stated_once() -> None:
    pair, _ = preserved(days=1)
    for days in (60, 90):
        pair.world.core.preserve((pair.bob.mailbox,), pair.world.now_s + days * DAY_S, days)
    batch = pair.world.core.take_batch(pair.world.now_ms)
    assert batch is not None
    assert [name for name, _ in batch.statements] == [pair.bob.mailbox.hex()]
