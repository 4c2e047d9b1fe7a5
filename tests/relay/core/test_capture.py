"""Capture: what an order records is what was committed and handed out for its mailboxes, no more and no less."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.core import Batch
from relay.core.capture import CAPTURES_MAX
from relay.core.docket import OrderKind, Scope, ScopeKind
from relay.core.events import REASON_ACKED, REASON_CLOSED
from tests.relay.strategies import body_bytes, picks
from tests.relay.world import HOUR_S, START_MS, Device, Mail, Pair, World, a_pair
from wire.capture import (
    CaptureBegan,
    CaptureCovered,
    CapturedEvent,
    CaptureEnded,
    CaptureEvent,
    CaptureLost,
    CaptureRecord,
    check_bodies,
    records_of,
)
from wire.commands import AddPrekeys, PublishList, Withdraw
from wire.errors import FormatError

DAY_S = 86_400
UNTIL_S = START_MS // 1_000 + 30 * DAY_S
BOB = Scope(ScopeKind.ACCOUNT, "bob@acme.example")


def capture(world: World, kind: OrderKind = OrderKind.INTERCEPTION, scope: Scope = BOB, number: int = 3) -> None:
    world.core.capture(number, kind, scope, UNTIL_S, world.now_ms)


def taken(world: World, number: int = 3) -> list[CaptureRecord]:
    records: list[CaptureRecord] = []
    more = True
    while more:
        part = world.core.take_captured(number, world.now_ms)
        records += records_of(part.data)
        more = part.more
    return records


def events(world: World, number: int = 3) -> list[CapturedEvent]:
    return [record for record in taken(world, number) if isinstance(record, CapturedEvent)]


def send(pair: Pair, count: int = 1) -> list[Mail]:
    mails = [pair.world.mail(pair.bob) for _ in range(count)]
    pair.world.send(pair.ana, pair.world.submit(pair.ana, pair.bob.account, *mails))
    return mails


def test_an_interception_has_the_ciphertext_as_it_came_and_went_and_the_devices_of_the_links() -> None:
    pair = a_pair()
    capture(pair.world)
    (mail,) = send(pair)
    pair.world.send(pair.bob, pair.world.ack(pair.bob, mail))
    began, covered, stored, delivered, acked = taken(pair.world)
    ana, bob, now_ms = (pair.ana.key.public,), (pair.bob.key.public,), pair.world.now_ms
    box, body = pair.bob.mailbox, mail.envelope.body
    assert began == CaptureBegan(now_ms, UNTIL_S)
    assert covered == CaptureCovered(now_ms, box, pair.bob.key.public)
    assert stored == CapturedEvent(now_ms, 0, CaptureEvent.STORED, ana, box, 1, 400, body)
    assert delivered == CapturedEvent(now_ms, 1, CaptureEvent.DELIVERED, bob, box, 1, 400, body)
    assert acked == CapturedEvent(now_ms, 2, CaptureEvent.ACKNOWLEDGED, bob, box, 1, 400, b"")


def test_a_pen_register_has_the_same_events_and_no_body() -> None:
    pair = a_pair()
    capture(pair.world, OrderKind.PEN_REGISTER)
    send(pair)
    found = events(pair.world)
    assert [one.event for one in found] == [CaptureEvent.STORED, CaptureEvent.DELIVERED]
    assert all(one.body == b"" and one.body_bytes == 400 for one in found)


def test_who_takes_a_message_back_is_recorded() -> None:
    pair = a_pair(credit=0)
    capture(pair.world)
    (mail,) = send(pair)
    pair.world.send(pair.ana, Withdraw(pair.ana.next_ref(), pair.bob.mailbox, (mail.token,)))
    stored, withdrawn = events(pair.world)
    assert (withdrawn.event, withdrawn.devices) == (CaptureEvent.WITHDRAWN, stored.devices)
    assert withdrawn.devices == (pair.ana.key.public,)


def test_what_expires_or_goes_with_its_device_is_recorded_as_of_no_link() -> None:
    pair = a_pair(credit=0)
    world = pair.world
    capture(world)
    soon = world.mail(pair.bob, expiry=world.now_s + HOUR_S)
    world.send(pair.ana, world.submit(pair.ana, pair.bob.account, soon, world.mail(pair.bob)))
    world.after(2 * HOUR_S * 1_000)
    second = world.device("bob 2", pair.bob.account)
    world.link(second)
    world.send(pair.bob, PublishList(pair.bob.next_ref(), world.next_list(pair.bob.account, second)))
    world.after(1_000)
    found = events(world)[2:]
    assert [(one.event, one.devices, one.number) for one in found] == [
        (CaptureEvent.EXPIRED, (), 1),
        (CaptureEvent.CLOSED, (), 2),
    ]


def test_what_waited_before_is_recorded_when_it_is_handed_over() -> None:
    pair = a_pair(credit=0)
    (mail,) = send(pair)
    capture(pair.world)
    pair.world.subscribe(pair.bob)
    (delivered,) = events(pair.world)
    assert (delivered.event, delivered.body) == (CaptureEvent.DELIVERED, mail.envelope.body)


def test_a_refused_submit_and_one_whose_commit_fails_are_not_recorded() -> None:
    pair = a_pair()
    world = pair.world
    capture(world)
    taken(world)
    late = world.mail(pair.bob, expiry=world.now_s - 1)
    world.send(pair.ana, world.submit(pair.ana, pair.bob.account, late))
    world.fail = 1
    mails = send(pair)
    assert len(pair.ana.refusals()) == 2
    assert events(world) == []
    world.send(pair.ana, world.submit(pair.ana, pair.bob.account, *mails))
    assert [one.event for one in events(world)] == [CaptureEvent.STORED, CaptureEvent.DELIVERED]


def test_an_acknowledgement_whose_commit_fails_is_recorded_with_the_one_that_holds() -> None:
    pair = a_pair()
    capture(pair.world)
    (mail,) = send(pair)
    taken(pair.world)
    pair.world.fail = 1
    pair.world.send(pair.bob, pair.world.ack(pair.bob, mail))
    assert events(pair.world) == []
    pair.world.send(pair.bob, pair.world.ack(pair.bob, mail))
    assert [one.event for one in events(pair.world)] == [CaptureEvent.ACKNOWLEDGED]


def test_the_same_submit_again_is_stored_once() -> None:
    pair = a_pair()
    capture(pair.world)
    mail = pair.world.mail(pair.bob)
    submits = [pair.world.submit(pair.ana, pair.bob.account, mail) for _ in range(2)]
    pair.world.send(pair.ana, *submits)
    pair.world.send(pair.ana, pair.world.submit(pair.ana, pair.bob.account, mail))
    assert [one.event for one in events(pair.world)] == [CaptureEvent.STORED, CaptureEvent.DELIVERED]


def test_a_device_that_is_enrolled_later_is_covered() -> None:
    pair = a_pair()
    world = pair.world
    capture(world, scope=Scope(ScopeKind.TENANT, "acme.example"))
    taken(world)
    cai = world.enrolled("cai")
    world.send(pair.ana, world.submit(pair.ana, cai.account, world.mail(cai)))
    covered, stored, _delivered = taken(world)
    assert covered == CaptureCovered(world.now_ms, cai.mailbox, cai.key.public)
    assert isinstance(stored, CapturedEvent)
    assert stored.mailbox == cai.mailbox


def test_it_ends_with_its_day_even_if_nothing_passes() -> None:
    pair = a_pair()
    capture(pair.world)
    pair.world.after(31 * DAY_S * 1_000)
    send(pair)
    part = pair.world.core.take_captured(3, pair.world.now_ms)
    assert part.ended == "until"
    assert list(records_of(part.data))[-1] == CaptureEnded(UNTIL_S * 1_000, "until")
    assert not any(isinstance(record, CapturedEvent) for record in records_of(part.data))
    with pytest.raises(FormatError, match="nothing is captured for order 3"):
        pair.world.core.take_captured(3, pair.world.now_ms)


def test_what_waits_when_it_ends_can_still_be_taken_and_nothing_follows() -> None:
    pair = a_pair()
    capture(pair.world)
    send(pair)
    pair.world.core.end_capture(3, "withdrawn", pair.world.now_ms)
    send(pair)
    *_, delivered, ended = taken(pair.world)
    assert isinstance(delivered, CapturedEvent)
    assert delivered.number == 1
    assert ended == CaptureEnded(pair.world.now_ms, "withdrawn")


def test_what_nobody_takes_is_counted_and_said_in_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relay.core.capture.CAPTURED_BYTES_MAX", 2_000)
    pair = a_pair()
    capture(pair.world)
    send(pair, 8)
    first = taken(pair.world)
    kept = [record for record in first if isinstance(record, CapturedEvent)]
    lost = first[-1]
    assert isinstance(lost, CaptureLost)
    assert len(kept) + lost.events == 16
    assert [one.seq for one in kept] == list(range(len(kept)))
    send(pair)
    assert [one.seq for one in events(pair.world)] == [16, 17]


def test_a_clock_that_is_put_back_dates_nothing_before_what_is_there() -> None:
    pair = a_pair()
    capture(pair.world)
    pair.world.now_ms -= 5_000
    send(pair)
    assert {one.time_ms for one in events(pair.world)} == {START_MS}


def test_what_cannot_be_captured_is_refused_by_name() -> None:
    pair = a_pair()
    with pytest.raises(FormatError, match="content is not about what passes"):
        capture(pair.world, OrderKind.CONTENT)
    pair.world.now_ms = UNTIL_S * 1_000
    with pytest.raises(FormatError, match="its day has passed"):
        capture(pair.world)
    pair.world.now_ms = START_MS
    for number in range(CAPTURES_MAX):
        capture(pair.world, number=number)
    capture(pair.world, number=0)
    with pytest.raises(FormatError, match=f"limit {CAPTURES_MAX}"):
        capture(pair.world, number=CAPTURES_MAX)


def test_a_capture_that_nobody_takes_from_is_forgotten() -> None:
    pair = a_pair()
    capture(pair.world)
    send(pair)
    pair.world.core.forget_capture(3)
    with pytest.raises(FormatError, match="nothing is captured"):
        pair.world.core.take_captured(3, pair.world.now_ms)


class Seen(World):
    """A world that keeps its own account of what was committed for one mailbox, from the batches alone."""

    def __init__(self) -> None:
        super().__init__()
        self.account: list[tuple[CaptureEvent, int, bytes]] = []
        self.of: bytes = b""
        self.number_of: dict[int, int] = {}

    def end(self, batch: Batch) -> None:
        holds = not self.fail
        super().end(batch)
        if not holds:
            return
        gone = {row.number for row in batch.tombstones if row.mailbox == self.of}
        for row in batch.envelopes:
            if row.mailbox == self.of:
                self.number_of[row.seq] = row.number
                self.account.append((CaptureEvent.STORED, row.number, row.body))
        for stone in batch.tombstones:
            if stone.mailbox == self.of:
                event = CaptureEvent.ACKNOWLEDGED if stone.reason == REASON_ACKED else CaptureEvent.WITHDRAWN
                event = CaptureEvent.CLOSED if stone.reason == REASON_CLOSED else event
                self.account.append((event, stone.number, b""))
        for seq in batch.envelopes_erased:
            if (number := self.number_of.get(seq)) is not None and number not in gone:
                self.account.append((CaptureEvent.EXPIRED, number, b""))


def act(world: Seen, people: list[Device], sent: list[tuple[Device, Mail]], word: str, pick: int, size: int) -> None:
    who, to = people[pick % 3], people[pick // 3 % 3]
    if word == "send":
        expiry = world.now_s + (90 if pick % 5 == 0 else DAY_S)
        mail = world.mail(to, size, expiry=expiry)
        world.send(who, world.submit(who, to.account, mail))
        sent.append((to, mail))
    elif word == "again" and sent:
        to, mail = sent[pick % len(sent)]
        world.send(who, world.submit(who, to.account, mail))
    elif word == "ack" and sent:
        to, mail = sent[pick % len(sent)]
        world.send(to, world.ack(to, mail))
    elif word == "withdraw" and sent:
        to, mail = sent[pick % len(sent)]
        world.send(who, Withdraw(who.next_ref(), to.mailbox, (mail.token,)))
    elif word == "fail":
        world.fail = 1
    elif word == "wait":
        world.after(pick % 200_000 + 1)
    elif word == "keys":
        world.send(who, AddPrekeys(who.next_ref(), (who.one_time(f"{pick}"),)))


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["send", "send", "send", "again", "ack", "ack", "withdraw", "fail", "wait", "keys"]),
            picks(),
            body_bytes(),
        ),
        max_size=25,
    ),
    st.sampled_from([OrderKind.INTERCEPTION, OrderKind.PEN_REGISTER]),
)
def test_a_capture_is_what_was_committed_and_handed_out_for_its_mailboxes_and_nothing_of_others(
    actions: list[tuple[str, int, int]], kind: OrderKind
) -> None:
    world = Seen()
    people = [world.enrolled(name, credit=2) for name in ("ana", "bob", "cai")]
    world.of = people[1].mailbox
    capture(world, kind)
    sent: list[tuple[Device, Mail]] = []
    for word, pick, size in actions:
        act(world, people, sent, word, pick, size)
    found = events(world)
    bodies = kind is OrderKind.INTERCEPTION
    for one in found:
        check_bodies(kind.value, one)
    assert {one.mailbox for one in found} <= {world.of}
    assert [one.seq for one in found] == list(range(len(found)))
    committed = [one for one in found if one.event != CaptureEvent.DELIVERED]
    expected = [(event, number, body if bodies else b"") for event, number, body in world.account]
    assert Counter((one.event, one.number, one.body) for one in committed) == Counter(expected)
    handed = [(one.number, one.body if bodies else b"") for one in people[1].delivered()]
    assert [(one.number, one.body) for one in found if one.event == CaptureEvent.DELIVERED] == handed
