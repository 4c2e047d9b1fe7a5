"""`python -m benchmarks.answering WAY PORT RELAY RECEIPT DELIVERY`: the process that benchmarks/mqtt.py measures.

It stands where the relay stands, without being one: it subscribes to `bp/R/+/up`, and answers each packet with one of a
receipt's size to its sender and one of a delivery's size to the recipient that the packet names. WAY says with what:

    aiomqtt     as aiomqtt's documentation does it: `async for` over the messages, `await publish` for each answer
    transport   relay/transport/mqtt.py, which is aiomqtt with batches: what the relay itself receives and sends with

A packet begins with its own mark (16 bytes), which both answers begin with, and the recipient's tag (16 bytes).
"""

import asyncio
import os
import random
import sys

import aiomqtt

from benchmarks.load.worker import loop_factory
from relay.transport import Packet
from relay.transport.address import BrokerAddress
from relay.transport.mqtt import Transport

__all__ = ["MARK_BYTES", "WAYS", "main"]

MARK_BYTES = 16
TAG_BYTES = 16
WAYS = ("aiomqtt", "transport")
_PACKETS_MAX = 512


async def _with_aiomqtt(port: int, relay_id: bytes, receipt: bytes, delivery: bytes) -> None:
    prefix = f"bp/{relay_id.hex()}/"
    async with aiomqtt.Client("127.0.0.1", port, identifier="answering") as client:
        await client.subscribe(f"{prefix}+/up", qos=0)
        print("ready", flush=True)
        async for message in client.messages:
            packet = message.payload
            assert isinstance(packet, bytes)
            sender = message.topic.value[len(prefix) : -len("/up")]
            recipient = packet[MARK_BYTES : MARK_BYTES + TAG_BYTES].hex()
            await client.publish(f"{prefix}{sender}/down", packet[:MARK_BYTES] + receipt, qos=0)
            await client.publish(f"{prefix}{recipient}/down", packet[:MARK_BYTES] + delivery, qos=0)


async def _with_transport(port: int, relay_id: bytes, receipt: bytes, delivery: bytes) -> None:
    # Nothing secret depends on it: it jitters pauses between attempts to connect.
    transport = Transport(BrokerAddress("127.0.0.1", port), relay_id, random.Random(0))
    await transport.start()
    print("ready", flush=True)
    while True:
        answers: list[Packet] = []
        for sender, packet in await transport.receive(_PACKETS_MAX):
            answers.append((sender, packet[:MARK_BYTES] + receipt))
            answers.append((packet[MARK_BYTES : MARK_BYTES + TAG_BYTES], packet[:MARK_BYTES] + delivery))
        await transport.send(answers)


def main(argv: list[str]) -> int:
    """Answer until the process is ended."""
    way, port, relay_id, receipt_bytes, delivery_bytes = argv
    run = {"aiomqtt": _with_aiomqtt, "transport": _with_transport}[way]
    receipt, delivery = (os.urandom(int(size) - MARK_BYTES) for size in (receipt_bytes, delivery_bytes))
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(run(int(port), bytes.fromhex(relay_id), receipt, delivery))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
