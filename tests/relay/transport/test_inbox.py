"""The queue of arrived packets: bounded, in turns, and a flood pushes nobody else out."""

import pytest

from relay.transport import TransportClosed, TransportCounters
from relay.transport.inbox import TURN_BYTES, TURN_PACKETS, Inbox
from wire.limits import FRAME_BYTES_MAX

LOUD, QUIET, THIRD = (bytes((number,)) * 16 for number in range(3))


def filled(packets_max: int = 64, bytes_max: int = 64 * FRAME_BYTES_MAX) -> tuple[Inbox, TransportCounters]:
    counters = TransportCounters()
    return Inbox(counters, packets_max, bytes_max), counters


async def test_packets_of_one_sender_stay_in_order_and_the_newest_is_dropped_when_full() -> None:
    inbox, counters = filled()
    assert [inbox.put(LOUD, bytes((number,))) for number in range(70)] == [True] * 64 + [False] * 6
    assert await inbox.take(100) == [(LOUD, bytes((number,))) for number in range(64)]
    assert (counters.received, counters.dropped_full, len(inbox)) == (64, 6, 0)


async def test_attack_flood_of_one_sender_lets_the_others_in_and_takes_turns_with_them() -> None:
    inbox, counters = filled()
    for number in range(1_000):
        inbox.put(LOUD, bytes((number % 256,)))
    assert all(inbox.put(QUIET, bytes((number,))) for number in range(10))
    assert inbox.put(THIRD, b"third")
    assert not inbox.put(LOUD, b"more")
    assert len(inbox) == 64
    taken = await inbox.take(TURN_PACKETS + 11)
    assert [packet for tag, packet in taken if tag == QUIET] == [bytes((number,)) for number in range(10)]
    assert [packet for tag, packet in taken if tag == THIRD] == [b"third"]
    rest = await inbox.take(100)
    loud = [packet for tag, packet in taken + rest if tag == LOUD]
    assert loud == [bytes((number,)) for number in range(64 - 11)]
    assert counters.received == 64
    assert counters.received + counters.dropped_full == 1_000 + 10 + 1 + 1


async def test_attack_flood_of_large_packets_leaves_room_for_small_ones() -> None:
    inbox, _ = filled(bytes_max=16 * FRAME_BYTES_MAX)
    for _ in range(100):
        inbox.put(LOUD, bytes(FRAME_BYTES_MAX))
    assert len(inbox) == 16
    assert all(inbox.put(QUIET, b"small") for _ in range(8))
    taken = await inbox.take(100)
    assert [tag for tag, _ in taken] == [LOUD], "one turn, after which the relay's other parts have theirs"
    taken = await inbox.take(100)
    assert [tag for tag, _ in taken].count(QUIET) == 8
    while len(inbox):
        taken += await inbox.take(100)
    assert sum(len(packet) for _, packet in taken) <= 15 * FRAME_BYTES_MAX


async def test_attack_sender_of_larger_packets_gets_no_longer_turns() -> None:
    inbox, _ = filled()
    for number in range(12):
        inbox.put(LOUD, bytes((number,)) * (TURN_BYTES // 4))
    for number in range(12):
        inbox.put(QUIET, bytes((number,)))
    taken = await inbox.take(100)
    assert [tag for tag, _ in taken[:16]] == [LOUD] * 4 + [QUIET] * 12
    assert [tag for tag, _ in taken[16:]] == [LOUD] * 8
    assert [packet[0] for tag, packet in taken if tag == LOUD] == list(range(12))


async def test_two_who_have_an_equal_part_push_each_other_out_no_more() -> None:
    inbox, _ = filled(packets_max=10)
    for _ in range(20):
        inbox.put(LOUD, b"a")
    accepted = [inbox.put(QUIET, b"b") for _ in range(20)]
    assert accepted == [True] * 5 + [False] * 15
    tags = [tag for tag, _ in await inbox.take(100)]
    assert (tags.count(LOUD), tags.count(QUIET)) == (5, 5)


async def test_more_senders_than_places_are_refused_when_all_are_taken() -> None:
    inbox, counters = filled(packets_max=8)
    accepted = [inbox.put(bytes((number,)) * 16, b"x") for number in range(20)]
    assert accepted == [True] * 8 + [False] * 12
    assert counters.dropped_full == 12
    assert len(await inbox.take(3)) == 3
    assert len(await inbox.take(30)) == 5


async def test_a_closed_queue_takes_nothing() -> None:
    inbox, counters = filled()
    inbox.put(LOUD, b"x")
    inbox.close()
    assert not inbox.put(LOUD, b"y")
    assert counters.dropped_full == 1
    with pytest.raises(TransportClosed):
        await inbox.take(1)
