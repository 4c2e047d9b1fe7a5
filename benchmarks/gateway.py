"""Encrypted, padded, sealed and receipted chats a second from one gateway process, and the ratchet's share.

One process holds the gateway and the devices behind it (benchmarks/gateway_people.py): each chat is encoded, encrypted
by a real session's ratchet, padded, put into an envelope and submitted; the gateway fills frames of all devices in
turns and seals them; a relay of its own process, with SQLite on disk, commits and receipts; the receipts are verified.
A closed loop: each device has a bounded number of submits without receipts. Afterwards, in `drain`, all devices
subscribe, decrypt, compare and acknowledge. The gateway reaches its broker by MQTT (aiomqtt) or, with `nats`, by NATS's
own protocol (nats-py), as the relay does there. A run with a lost, doubled or changed chat has no figures.

CPU is user and system time of this process; the ratchet's part is the time on its thread inside `Session.encrypt`
(chain, message key, hint, header, padding, content, commitment). No device writes a home: client/store.py's sealed rows
and their fsync, which a real device pays for on its own machine, are not in these figures.
"""

import argparse
import asyncio
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from benchmarks.charts import Chart, bars_of
from benchmarks.gateway_people import Chatter, Totals
from benchmarks.load.ledger import LostOrDoubled
from benchmarks.machine import facts, versions
from benchmarks.processes import usage_of
from benchmarks.progress import Bar, progress
from benchmarks.report import Case, Report, Skipped, new_report
from benchmarks.running import command_line, finish, guarded, parser_of, words_of
from benchmarks.servers import BROKERS, RelayServer, missing_broker, relay_server
from client.gateway import Gateway
from client.gateway.upstream import Upstream

__all__ = ["charts", "main"]

_TARGET_PER_S: Final = 5_000
_STEP_S_MAX: Final = 300
_LOOK_S: Final = 0.02


def main(argv: Sequence[str]) -> int:
    """Run the benchmark; returns the exit status."""
    return guarded(lambda: _main(argv))


def _parser() -> argparse.ArgumentParser:
    parser = parser_of("gateway", __doc__ or "", rounds=3)
    parser.add_argument(
        "--brokers",
        type=words_of,
        default=["mosquitto", "nats"],
        help=f"of {', '.join(BROKERS)}; nats: both speak its own protocol",
    )
    parser.add_argument("--devices", type=int, default=200, help="devices behind the gateway (default 200)")
    parser.add_argument("--chats", type=int, default=20_000, help="chats a round (default 20000)")
    parser.add_argument("--bytes", type=words_of, default=["200"], help="bytes of a chat's text (default 200)")
    parser.add_argument("--submit", type=words_of, default=["1", "8"], help="chats in a submit (default 1,8)")
    parser.add_argument("--window", type=int, default=4, help="submits of a device without receipts (default 4)")
    return parser


def _main(argv: Sequence[str]) -> int:
    options = _parser().parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="blindpost-bench-") as folder:
        command = command_line("gateway", argv)
        report = new_report(
            "gateway", command, options.seed, facts(Path(folder)), versions(("mosquitto", "nats-server"))
        )
        brokers = []
        for broker in options.brokers:
            reason = missing_broker(broker)
            if reason is None:
                brokers.append(broker)
            else:
                report.skipped.append(Skipped(broker, reason))
        work = [
            (broker, int(size), int(each)) for broker in brokers for size in options.bytes for each in options.submit
        ]
        with progress(options.rounds * len(work)) as bar:
            for _ in range(options.rounds):
                for broker, text_bytes, per_submit in work:
                    _round(report, options, bar, broker, text_bytes, per_submit)
    return finish(report, charts(report), options.out)


def _round(
    report: Report, options: argparse.Namespace, bar: Bar, broker: str, text_bytes: int, per_submit: int
) -> None:
    name = f"{broker}, {text_bytes} bytes, {per_submit} a submit"
    bar.step(name)
    case = report.case(
        name,
        broker=broker,
        text_bytes=text_bytes,
        chats_a_submit=per_submit,
        devices=options.devices,
        chats=options.chats,
        window=options.window,
    )
    with (
        tempfile.TemporaryDirectory(prefix="blindpost-bench-") as folder,
        relay_server(Path(folder), broker) as relay,
        asyncio.Runner(loop_factory=_loop_factory()) as runner,
    ):
        runner.run(_measure(case, relay, options, bar, text_bytes, per_submit))
    bar.done()


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        from uvloop import new_event_loop
    except ImportError:
        return None
    made: Callable[[], asyncio.AbstractEventLoop] = new_event_loop
    return made


async def _measure(
    case: Case, relay: RelayServer, options: argparse.Namespace, bar: Bar, text_bytes: int, per_submit: int
) -> None:
    totals = Totals(relay.card)
    text = b"x" * text_bytes
    chatters = [Chatter(number, totals, text) for number in range(options.devices)]
    for chatter, other in zip(chatters, chatters[1:] + chatters[:1], strict=True):
        chatter.talk_to(other)
    async with asyncio.timeout(_STEP_S_MAX), Gateway(relay.card, bytes(32), Upstream(relay.url)) as gateway:
        await asyncio.gather(*(chatter.enrol(gateway, relay.admin) for chatter in chatters))
        await _submitted(case, relay, chatters, totals, options, bar, per_submit)
        await _drained(case, chatters, totals, bar)
        for chatter in chatters:
            chatter.check()
        for chatter in chatters:
            await chatter.stop()
    if totals.busy:
        case.notes.append(f"the gateway's queue was full {totals.busy} times")
    for code, count in sorted(totals.refused.items()):
        case.notes.append(f"the relay refused {count} commands for now (code {code})")


async def _submitted(
    case: Case,
    relay: RelayServer,
    chatters: Sequence[Chatter],
    totals: Totals,
    options: argparse.Namespace,
    bar: Bar,
    per_submit: int,
) -> None:
    each = options.chats // len(chatters)
    count = each * len(chatters)
    relay_before = usage_of(relay.server.pid)
    start_s, cpu_s = time.perf_counter(), time.process_time()
    for chatter in chatters:
        chatter.begin(each, options.window, per_submit)
    while totals.receipted < count:
        _look(chatters)
        bar.within(totals.receipted, count)
        await asyncio.sleep(_LOOK_S)
    seconds, cpu_s = time.perf_counter() - start_s, time.process_time() - cpu_s
    relay_cpu_s = (usage_of(relay.server.pid) - relay_before).cpu_s
    if totals.receipted != count:
        raise LostOrDoubled(f"{totals.receipted} receipts for {count} chats")
    case.add("receipted", "/s", "more", count / seconds)
    case.add("gateway CPU", "µs", "less", cpu_s / count * 1e6)
    case.add("ratchet, encrypt", "µs", "less", totals.encrypt_ns / count / 1e3)
    case.add("ratchet's share of the CPU", "%", "", totals.encrypt_ns / 1e9 / cpu_s * 100)
    case.add("chats a second of gateway CPU", "/s", "more", count / cpu_s)
    case.add("relay CPU", "µs", "less", relay_cpu_s / count * 1e6)


async def _drained(case: Case, chatters: Sequence[Chatter], totals: Totals, bar: Bar) -> None:
    count = totals.receipted
    start_s, cpu_s = time.perf_counter(), time.process_time()
    await asyncio.gather(*(chatter.subscribe() for chatter in chatters))
    while totals.delivered < count:
        _look(chatters)
        bar.within(totals.delivered, count)
        await asyncio.sleep(_LOOK_S)
    seconds, cpu_s = time.perf_counter() - start_s, time.process_time() - cpu_s
    case.add("drained", "/s", "more", count / seconds)
    case.add("gateway CPU, drain", "µs", "less", cpu_s / count * 1e6)
    case.add("ratchet, decrypt", "µs", "less", totals.decrypt_ns / count / 1e3)


def _look(chatters: Sequence[Chatter]) -> None:
    for chatter in chatters:
        chatter.look()


def charts(report: Report) -> list[Chart]:
    """Chats a second, and CPU for each."""
    return [
        bars_of(
            report.cases,
            "receipted",
            "Encrypted and receipted chats a second from one gateway process",
            [(_TARGET_PER_S, "target")],
        ),
        bars_of(report.cases, "gateway CPU", "CPU of the gateway's process for each chat, ratchets included"),
    ]
