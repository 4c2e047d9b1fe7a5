"""Faults of the loopback network are drawn from the seed that it is given, and nothing is invented."""

import random

from hypothesis import given
from hypothesis import strategies as st

from relay.transport.loopback import Faults, Network, Transport

TAG = bytes(16)


async def carried(seed: int, faults: Faults, count: int = 60) -> list[bytes]:
    network = Network(random.Random(seed), faults)
    transport = Transport(network)
    await transport.start()
    device = network.device(TAG)
    for number in range(count):
        await device.send(bytes((number,)))
    got = [packet for _, packet in await transport.receive(1_000)]
    await transport.close()
    return got


async def test_one_seed_repeats_one_run() -> None:
    faults = Faults(drop=0.2, duplicate=0.2, reorder=0.2)
    assert await carried(7, faults) == await carried(7, faults)
    assert await carried(7, faults) != await carried(8, faults)


async def test_each_fault_is_what_it_says() -> None:
    everything = [bytes((number,)) for number in range(60)]
    assert await carried(1, Faults()) == everything
    dropped = await carried(1, Faults(drop=0.5))
    assert dropped == sorted(set(dropped))
    assert 0 < len(dropped) < 60
    doubled = await carried(1, Faults(duplicate=0.5))
    assert sorted(set(doubled)) == everything
    assert len(doubled) > 60
    reordered = await carried(1, Faults(reorder=0.5))
    assert reordered != sorted(reordered)
    assert set(reordered) <= set(everything)


@given(st.integers(0, 2**32), st.floats(0, 1), st.floats(0, 1), st.floats(0, 0.9))
def test_no_fault_makes_a_packet_that_was_not_sent(seed: int, drop: float, duplicate: float, reorder: float) -> None:
    network = Network(random.Random(seed), Faults(drop, duplicate, reorder))
    seen: list[bytes] = []

    class Inbox:
        def put(self, device_tag: bytes, packet: bytes) -> bool:
            assert device_tag == TAG
            seen.append(packet)
            return True

    network._relay = Inbox()  # type: ignore[assignment]  # the queue needs a loop; the faults do not
    for number in range(20):
        network.up(TAG, bytes((number,)))
    assert set(seen) <= {bytes((number,)) for number in range(20)}
    assert max((seen.count(packet) for packet in seen), default=0) <= 2


async def test_packets_for_nobody_are_counted() -> None:
    network = Network()
    network.up(TAG, b"no relay")
    network.down(TAG, b"no device")
    assert network.counters.dropped_offline == 2
    first, second = Transport(network), Transport(network)
    await first.start()
    await second.start()
    network.up(TAG, b"to the later one")
    assert await second.receive(1) == [(TAG, b"to the later one")]
    await first.close()
    network.up(TAG, b"still there")
    assert await second.receive(1) == [(TAG, b"still there")]
    await second.close()
