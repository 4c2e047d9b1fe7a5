"""MQTT: what aiomqtt can move in the relay's process, without a relay, beside what the relay moves; through Mosquitto.

The work of the first cases is what MQTT has to do for the relay at one envelope a frame, and nothing else: for each
message of 1 KiB a packet of a submit's size is received on `bp/R/+/up`, and one of a receipt's and one of a delivery's
size are published. No handshake, sealing, signature, store or acknowledgement.

    aiomqtt alone                  as its documentation does it: a message at a time, each publication awaited
    the relay's MQTT alone         relay/transport/mqtt.py, which is aiomqtt with batches
    relay, through gateways        the whole relay on disk, devices behind gateways: answers of a commit share frames
    relay, every device by itself  the same with a link for each device: nearly a frame for every step of a message

The load keeps at most 64 messages of each sender under way; in the cases without a relay until both answers are there.
Rounds take turns. Every message must be answered twice, and once each, or the run fails.
"""

import argparse
import asyncio
import os
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.answering import MARK_BYTES, WAYS
from benchmarks.charts import Chart, bars_of
from benchmarks.load import mqtt
from benchmarks.load.job import Job
from benchmarks.load.ledger import LostOrDoubled
from benchmarks.load.parties import Party, body_bytes_for, mail_for
from benchmarks.load.process import running
from benchmarks.load.worker import loop_factory
from benchmarks.machine import facts, versions
from benchmarks.peers.measured import Failure, Window
from benchmarks.peers.work import within
from benchmarks.processes import Server, ServerError, own_cpu_s, started, usage_of
from benchmarks.progress import Bar, progress
from benchmarks.report import Case, Report, Skipped, new_report
from benchmarks.running import command_line, finish, guarded, parser_of
from benchmarks.servers import missing_broker, mosquitto, relay_server
from wire.codec import encode
from wire.commands import Delivered, Delivery, Receipts, Submit
from wire.link import FRAME_OVERHEAD_BYTES
from wire.receipt import ReceiptEntry

__all__ = ["RELAY_ALONE", "RELAY_GATEWAYS", "AIOMQTT", "charts", "main", "packet_sizes"]

AIOMQTT = "aiomqtt alone"
TRANSPORT = "the relay's MQTT alone"
RELAY_GATEWAYS = "relay, through gateways"
RELAY_ALONE = "relay, every device by itself"
_NAMES = dict(zip(WAYS, (AIOMQTT, TRANSPORT), strict=True))

READY_S_MAX = 20.0
# Of a commit with 256 envelopes: the path has eight nodes of 32 bytes.
_PATH_BYTES = 8 * 32
_HEADER_BYTES = 110


def main(argv: list[str]) -> int:
    """Run the benchmark; returns the exit status."""
    return guarded(lambda: _main(argv))


def _parser() -> argparse.ArgumentParser:
    parser = parser_of("mqtt", __doc__ or "", rounds=3)
    parser.add_argument("--messages", type=int, default=20_000, help="messages a round (default 20000)")
    parser.add_argument("--senders", type=int, default=20, help="default 20")
    parser.add_argument("--recipients", type=int, default=200, help="default 200")
    parser.add_argument("--window", type=int, default=64, help="messages a sender has under way (default 64)")
    parser.add_argument("--content", type=int, default=1_024, help="bytes of content (default 1024)")
    return parser


def _main(argv: list[str]) -> int:
    options = _parser().parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="blindpost-bench-") as folder:
        report = new_report(
            "mqtt", command_line("mqtt", argv), options.seed, facts(Path(folder)), versions(("mosquitto",))
        )
    if (reason := missing_broker("mosquitto")) is not None:
        report.skipped.append(Skipped("mosquitto", reason))
        return finish(report, [], options.out)
    with progress(options.rounds * 4) as bar:
        for number in range(options.rounds):
            for way in WAYS:
                bar.step(f"{_NAMES[way]}, round {number + 1}")
                _answered(_case(report, _NAMES[way], options), way, options, bar)
                bar.done()
            for gateways in (True, False):
                name = RELAY_GATEWAYS if gateways else RELAY_ALONE
                bar.step(f"{name}, round {number + 1}")
                _relayed(_case(report, name, options), gateways, options, options.seed + number, bar)
                bar.done()
    return finish(report, charts(report), options.out)


def _case(report: Report, name: str, options: argparse.Namespace) -> Case:
    return report.case(
        name,
        broker="mosquitto",
        messages=options.messages,
        senders=options.senders,
        recipients=options.recipients,
        window=options.window,
        content_bytes=options.content,
        **packet_sizes(options.content),
    )


def packet_sizes(content_bytes: int) -> dict[str, int]:
    """The sizes of the three packets of one message, as the relay's link makes them."""
    recipient = Party("r0@bench.example")
    mail = mail_for(recipient, body_bytes_for(content_bytes))
    envelope = mail.envelope
    submit = Submit(1, recipient.account, recipient.list_hash, (envelope,))
    receipts = Receipts(bytes(_HEADER_BYTES), bytes(64), (ReceiptEntry(1, 0, 1, 100, bytes(_PATH_BYTES)),))
    delivered = Delivered(1, envelope.envelope_id, envelope.expiry, envelope.body)
    delivery = Delivery(recipient.mailbox, (delivered,))
    return {
        "submit_bytes": len(encode(submit)) + FRAME_OVERHEAD_BYTES,
        "receipt_bytes": len(encode(receipts)) + FRAME_OVERHEAD_BYTES,
        "delivery_bytes": len(encode(delivery)) + FRAME_OVERHEAD_BYTES,
    }


# ---- without a relay


def _answered(case: Case, way: str, options: argparse.Namespace, bar: Bar) -> None:
    sizes = packet_sizes(options.content)
    relay_id = os.urandom(16)
    with tempfile.TemporaryDirectory(prefix="blindpost-bench-") as folder, mosquitto(Path(folder)) as (broker, port):
        command = [sys.executable, "-m", "benchmarks.answering", way, port, relay_id.hex()]
        command += [sizes["receipt_bytes"], sizes["delivery_bytes"]]
        with started(command, Path(folder) / "answering.out") as server:
            _wait_ready(server)
            before, broker_before, own_s = usage_of(server.pid), usage_of(broker.pid), own_cpu_s()
            with asyncio.Runner(loop_factory=loop_factory()) as runner:
                took_s = runner.run(_exchange(port, relay_id, sizes["submit_bytes"], options, bar))
            used, broker_used = usage_of(server.pid) - before, usage_of(broker.pid) - broker_before
            own_s = own_cpu_s() - own_s
    _write_down(case, options.messages, took_s, used.cpu_s, broker_used.cpu_s, own_s)


def _wait_ready(server: Server) -> None:
    deadline = time.monotonic() + READY_S_MAX
    while b"ready" not in server.log.read_bytes():
        if server.process.poll() is not None or time.monotonic() > deadline:
            raise ServerError(f"answering did not start: {server.log.read_text(encoding='utf-8')[-600:]}")
        time.sleep(0.02)


async def _exchange(port: int, relay_id: bytes, submit_bytes: int, options: argparse.Namespace, bar: Bar) -> float:
    """Send everything; returns the seconds from the first message until the last answer."""
    failure, exchange = Failure(), _Exchange(options.messages)
    prefix = b"bp/%b/" % relay_id.hex().encode()
    senders = [os.urandom(16) for _ in range(options.senders)]
    recipients = [os.urandom(16) for _ in range(options.recipients)]
    windows = [Window(options.window) for _ in senders]

    def answered(topic: bytes, payload: bytes) -> None:
        try:
            place = exchange.take(payload, topic)
        except LostOrDoubled as error:
            failure.tell(error)
            return
        if place is not None:
            windows[place % options.senders].give()
            if place % 1_000 == 0:
                bar.within(exchange.complete, options.messages)

    up = await mqtt.connect("127.0.0.1", port, b"senders", failure.lost, answered)
    down = await mqtt.connect("127.0.0.1", port, b"recipients", failure.lost, answered)
    for connection, tags in ((up, senders), (down, recipients)):
        for tag in tags:
            await connection.subscribe(prefix + tag.hex().encode() + b"/down")
    filling = os.urandom(submit_bytes)

    async def send(sender: int) -> None:
        topic = prefix + senders[sender].hex().encode() + b"/up"
        for place in range(sender, options.messages, options.senders):
            await windows[sender].take()
            recipient = recipients[place % len(recipients)]
            exchange.expect(place, topic[:-3] + b"/down", prefix + recipient.hex().encode() + b"/down")
            mark = place.to_bytes(MARK_BYTES, "big")
            up.publish(topic, mark + recipient + filling[2 * MARK_BYTES :])
            await up.drain()
        await windows[sender].settled()

    start_s = time.perf_counter()
    await within([send(sender) for sender in range(options.senders)], failure.future)
    took_s = time.perf_counter() - start_s
    failure.future.cancel()
    up.close()
    down.close()
    exchange.close()
    return took_s


class _Exchange:
    """The account of what was sent: each message is answered once on each of two topics."""

    def __init__(self, messages: int) -> None:
        self._messages = messages
        self._waiting: dict[int, list[bytes]] = {}
        self.complete = 0

    def expect(self, place: int, *topics: bytes) -> None:
        """A message is sent; answers to it come on these topics."""
        self._waiting[place] = list(topics)

    def take(self, payload: bytes, topic: bytes) -> int | None:
        """An answer came; returns the message's place when it was the last one.

        Raises:
            LostOrDoubled: there was no such message, or it was answered there already.
        """
        place = int.from_bytes(payload[:MARK_BYTES], "big")
        waiting = self._waiting.get(place, [])
        if topic not in waiting:
            raise LostOrDoubled("an answer came twice, to another, or to nothing that was sent")
        waiting.remove(topic)
        if waiting:
            return None
        del self._waiting[place]
        self.complete += 1
        return place

    def close(self) -> None:
        """Check that everything was answered.

        Raises:
            LostOrDoubled: something was not.
        """
        if self._waiting or self.complete != self._messages:
            raise LostOrDoubled(f"{self.complete} of {self._messages} messages were answered")


# ---- with the relay


def _relayed(case: Case, gateways: bool, options: argparse.Namespace, seed: int, bar: Bar) -> None:
    with (
        tempfile.TemporaryDirectory(prefix="blindpost-bench-") as folder,
        relay_server(Path(folder), "mosquitto") as relay,
    ):
        assert relay.broker is not None
        job = Job(
            name="mqtt",
            broker=relay.url,
            relay_id=relay.card.relay_id.hex(),
            relay_key=relay.card.signing_key.hex(),
            admin_seed=relay.admin.seed.hex(),
            seed=seed,
            messages=options.messages,
            senders=options.senders,
            recipients=options.recipients,
            senders_a_link=options.senders if gateways else 1,
            devices_a_link=250 if gateways else 1,
            content_bytes=options.content,
            window=options.window,
        )
        with running([job], lambda done: bar.within(done, options.messages)) as loads:
            before, broker_before = usage_of(relay.server.pid), usage_of(relay.broker.pid)
            loads.phase("submit", "submitted")
            loads.phase("drain", "drained")
            used, broker_used = usage_of(relay.server.pid) - before, usage_of(relay.broker.pid) - broker_before
            (result,) = loads.phase("finish", "finished")
    took_s = (max(result.submitted_ns, result.delivered_ns) - result.submit_start_ns) / 1e9
    own_s = result.submit_cpu_s + result.drain_cpu_s
    _write_down(case, options.messages, took_s, used.cpu_s, broker_used.cpu_s, own_s)


def _write_down(case: Case, count: int, took_s: float, cpu_s: float, broker_s: float, own_s: float) -> None:
    case.add("moved", "messages/s", "more", count / took_s)
    case.add("CPU", "µs/message", "less", cpu_s * 1e6 / count)
    case.add("broker CPU", "µs/message", "less", broker_s * 1e6 / count)
    case.add("load busy", "% of a core", "", 100 * own_s / took_s)


def charts(report: Report) -> list[Chart]:
    """Messages a second and CPU; colours tell the relay from what moves packets only."""

    def group_of(case: Case) -> int:
        return 0 if case.name.startswith("relay,") else 1

    legend = ("the whole relay, on disk", "packets only: received, and two answers")
    return [
        bars_of(report.cases, "moved", "Messages a second through Mosquitto", (), group_of, legend),
        bars_of(report.cases, "CPU", "CPU of the process for each message", (), group_of, legend),
    ]
