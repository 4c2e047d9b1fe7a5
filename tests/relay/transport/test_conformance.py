"""What every transport keeps (relay/transport/__init__.py), on loopback, on amqtt, Mosquitto and NATS."""

import asyncio
import contextlib
import inspect
import os
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Protocol

import pytest

from benchmarks.wire_device import MqttHub
from relay.transport import RelayTransport, TransportClosed, TransportCounters, loopback, mqtt, nats
from relay.transport.address import BrokerAddress, free_port
from relay.transport.broker import EmbeddedBroker
from relay.transport.inbox import Inbox
from tests.relay.running import WAIT_S, mosquitto, nats_server, until
from wire.limits import FRAME_BYTES_MAX

RELAY_ID = bytes(range(16))
TAG = bytes(range(16, 32))
OTHER_TAG = bytes(range(32, 48))


class DevicePort(Protocol):
    async def send(self, packet: bytes) -> None: ...

    async def receive(self) -> bytes: ...


class Setting:
    """One transport under test, small queues, and devices at the other side."""

    def __init__(self, transport: RelayTransport) -> None:
        self.transport = transport

    async def device(self, tag: bytes) -> DevicePort:
        raise NotImplementedError


class LoopbackSetting(Setting):
    def __init__(self) -> None:
        self.network = loopback.Network(packets_max=PACKETS_MAX)
        super().__init__(loopback.Transport(self.network))

    async def device(self, tag: bytes) -> DevicePort:
        return self.network.device(tag)


class BrokerSetting(Setting):
    """Devices speak MQTT, whatever the relay speaks to the same broker."""

    def __init__(self, address: BrokerAddress, hub: MqttHub) -> None:
        self.hub = hub
        counters = TransportCounters()
        inbox = Inbox(counters, PACKETS_MAX)
        kind = nats.Transport if address.nats else mqtt.Transport
        super().__init__(kind(address, RELAY_ID, random.Random(1), inbox=inbox, counters=counters))

    async def device(self, tag: bytes) -> DevicePort:
        return await self.hub.port(tag)


PACKETS_MAX = 64


@contextlib.asynccontextmanager
async def broker_setting(address: BrokerAddress, device_address: BrokerAddress) -> AsyncIterator[Setting]:
    hub = MqttHub(device_address.host, device_address.port, RELAY_ID)
    await asyncio.wait_for(hub.start(), WAIT_S)
    try:
        yield BrokerSetting(address, hub)
    finally:
        await hub.stop()


@pytest.fixture(
    params=[
        "loopback",
        "amqtt",
        pytest.param("mosquitto", marks=pytest.mark.mosquitto),
        pytest.param("nats", marks=pytest.mark.nats_server),
    ]
)
async def setting(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Setting]:
    async with contextlib.AsyncExitStack() as stack:
        made: Setting
        if request.param == "loopback":
            made = LoopbackSetting()
        elif request.param == "amqtt":
            address = BrokerAddress("127.0.0.1", free_port("127.0.0.1"))
            broker = EmbeddedBroker(address)
            await broker.start()
            stack.push_async_callback(broker.stop)
            made = await stack.enter_async_context(broker_setting(address, address))
        elif request.param == "mosquitto":
            address = stack.enter_context(mosquitto(tmp_path))
            made = await stack.enter_async_context(broker_setting(address, address))
        else:
            addresses = stack.enter_context(nats_server(tmp_path))
            made = await stack.enter_async_context(broker_setting(*addresses))
        await asyncio.wait_for(made.transport.start(), WAIT_S)
        stack.push_async_callback(made.transport.close)
        yield made


async def received(transport: RelayTransport, count: int) -> list[tuple[bytes, bytes]]:
    got: list[tuple[bytes, bytes]] = []
    async with asyncio.timeout(WAIT_S):
        while len(got) < count:
            got += await transport.receive(256)
    return got


async def test_packets_come_in_order_with_the_tag_of_their_device(setting: Setting) -> None:
    one, other = await setting.device(TAG), await setting.device(OTHER_TAG)
    for number in range(10):
        await one.send(bytes((number,)))
    await other.send(b"other")
    got = await received(setting.transport, 11)
    assert [packet for tag, packet in got if tag == TAG] == [bytes((number,)) for number in range(10)]
    assert [packet for tag, packet in got if tag == OTHER_TAG] == [b"other"]
    assert setting.transport.counters.received == 11


async def test_packets_go_in_order_to_their_device_and_to_no_other(setting: Setting) -> None:
    one, other = await setting.device(TAG), await setting.device(OTHER_TAG)
    sent = [(TAG, bytes((number,))) for number in range(10)]
    await setting.transport.send([*sent[:5], (OTHER_TAG, b"other"), *sent[5:]])
    async with asyncio.timeout(WAIT_S):
        assert [await one.receive() for _ in range(10)] == [packet for _, packet in sent]
        assert await other.receive() == b"other"
    assert setting.transport.counters.sent == 11


async def test_the_largest_frame_passes_whole_both_ways(setting: Setting) -> None:
    device = await setting.device(TAG)
    packet = os.urandom(FRAME_BYTES_MAX)
    await device.send(packet)
    assert await received(setting.transport, 1) == [(TAG, packet)]
    await setting.transport.send([(TAG, packet)])
    assert await asyncio.wait_for(device.receive(), WAIT_S) == packet


async def test_a_packet_above_the_frame_limit_is_dropped_and_counted(setting: Setting) -> None:
    device = await setting.device(TAG)
    await device.send(bytes(FRAME_BYTES_MAX + 1))
    await device.send(b"next")
    assert await received(setting.transport, 1) == [(TAG, b"next")]
    assert setting.transport.counters.dropped_oversize == 1


async def test_a_full_queue_drops_the_newest_and_counts_it(setting: Setting) -> None:
    device = await setting.device(TAG)
    for number in range(PACKETS_MAX + 5):
        await device.send(bytes((number,)))
    counters = setting.transport.counters
    await until(lambda: counters.received + counters.dropped_full == PACKETS_MAX + 5, "the packets")
    got = await received(setting.transport, PACKETS_MAX)
    assert [packet for _, packet in got] == [bytes((number,)) for number in range(PACKETS_MAX)]
    assert counters.dropped_full == 5
    await device.send(b"again")
    assert await received(setting.transport, 1) == [(TAG, b"again")]


async def test_receive_gives_no_more_than_it_is_asked_for(setting: Setting) -> None:
    device = await setting.device(TAG)
    for number in range(6):
        await device.send(bytes((number,)))
    await until(lambda: setting.transport.counters.received == 6, "the packets")
    assert len(await setting.transport.receive(4)) == 4
    assert len(await setting.transport.receive(4)) == 2


async def test_close_wakes_whoever_receives_and_may_be_called_twice(setting: Setting) -> None:
    waiting = asyncio.create_task(setting.transport.receive(1))
    await asyncio.sleep(0)
    await setting.transport.close()
    with pytest.raises(TransportClosed):
        await asyncio.wait_for(waiting, WAIT_S)
    await setting.transport.close()


def test_the_transports_have_the_same_names_in_the_same_order() -> None:
    def names(kind: type) -> list[str]:
        return [name for name in vars(kind) if inspect.iscoroutinefunction(vars(kind)[name]) and name[0] != "_"]

    kinds = (loopback.Transport, mqtt.Transport, nats.Transport)
    for kind in kinds:
        assert names(kind) == names(RelayTransport)
        assert kind.__bases__ == (object,)
