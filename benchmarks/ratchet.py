"""The Double Ratchet, beside two others, in one run: `python -m benchmarks ratchet`.

Measured in CPU time of this process (all three are single-threaded and do no I/O; other work on the machine then counts
less), in rounds that take turns so that a noisy neighbour meets all alike:

* a chain: messages of one direction, all encrypted, then all decrypted in order; µs a message for each half;
* ping-pong: one message each way in turn, so that every message takes a Diffie-Hellman step; µs a message, both halves.

Printed are the median of the rounds and their range. For ours also the parts, each measured alone by the same calls,
and what the client does beside it for each message (`to_bytes`, the hint index). A peer that is not installed is named.
"""

import argparse
import asyncio
import importlib.metadata
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

from benchmarks.charts import Chart, bars_of
from benchmarks.machine import describe, facts, versions
from benchmarks.ratchet_peers import ENVELOPE_ID, NOW_S, Blindpost, Pair, PythonDoubleRatchet, Vodozemac
from benchmarks.report import Metric, Report, Skipped, new_report
from benchmarks.running import command_line, write
from keys.agreement import diffie_hellman, hkdf, x_public
from keys.chain import chain_step, hint_block
from keys.hints import HintIndex
from keys.message import aead_open, aead_seal, associated_start, message_keys
from wire.padding import pad, unpad

Rounds = dict[str, list[float]]
_NOTE = (
    "The three do not do the same work: blindpost encrypts headers, makes hints, commits to its keys and pads; the "
    "others do not (benchmarks/ratchet_peers.py)."
)


async def _chain(pair: Pair, content: bytes, count: int) -> tuple[float, float]:
    start = time.process_time_ns()
    messages = [await pair.encrypt(0, content) for _ in range(count)]
    between = time.process_time_ns()
    opened = [await pair.decrypt(1, message) for message in messages]
    end = time.process_time_ns()
    if any(one != content for one in opened):
        raise AssertionError(f"{pair.name} did not give back what was sent")
    return (between - start) / count / 1_000, (end - between) / count / 1_000


async def _ping_pong(pair: Pair, content: bytes, count: int) -> float:
    start = time.process_time_ns()
    for number in range(count):
        # End 1 begins: it has heard end 0 in the chain, so that each message is the first of its chain.
        speaks = 1 - number % 2
        if await pair.decrypt(1 - speaks, await pair.encrypt(speaks, content)) != content:
            raise AssertionError(f"{pair.name} did not give back what was sent")
    return (time.process_time_ns() - start) / count / 1_000


async def _compare(pairs: list[Pair], content: bytes, rounds: int, count: int) -> dict[str, Rounds]:
    found: dict[str, Rounds] = {pair.name: {"encrypt": [], "decrypt": [], "ping-pong": []} for pair in pairs}
    for number in range(rounds + 1):
        for pair in pairs:
            encrypt, decrypt = await _chain(pair, content, count)
            both = await _ping_pong(pair, content, max(2, count // 5 * 2))
            if number == 0:
                continue  # the first round warms caches up
            for name, figure in (("encrypt", encrypt), ("decrypt", decrypt), ("ping-pong", both)):
                found[pair.name][name].append(figure)
    return found


def _alone(function: Callable[[], object], rounds: int, count: int) -> list[float]:
    figures = []
    for _ in range(rounds):
        start = time.process_time_ns()
        for _ in range(count):
            function()
        figures.append((time.process_time_ns() - start) / count / 1_000)
    return figures


def _parts(content: bytes, rounds: int, count: int) -> dict[str, dict[str, list[float]]]:
    key, nonce, header = os.urandom(32), os.urandom(24), os.urandom(40)
    start, associated = os.urandom(48), associated_start(os.urandom(32), os.urandom(32)) + bytes(16 + 128)
    padded = pad(content)
    sealed_header, sealed = aead_seal(header, start, nonce, key), aead_seal(padded, associated, nonce, key)
    shared = {
        "chain key and message key (BLAKE2b)": lambda: chain_step(key),
        "encryption key and commitment (BLAKE2b)": lambda: message_keys(key),
        "hint (a quarter of a BLAKE2b)": lambda: hint_block(key, 1),
    }
    encrypt = shared | {
        "header (XChaCha20-Poly1305, 40 bytes)": lambda: aead_seal(header, start, nonce, key),
        f"content (XChaCha20-Poly1305, {len(padded)} bytes)": lambda: aead_seal(padded, associated, nonce, key),
        "padding": lambda: pad(content),
        "nonce (24 random bytes)": lambda: os.urandom(24),
    }
    decrypt = shared | {
        "header (XChaCha20-Poly1305, 40 bytes)": lambda: aead_open(sealed_header, start, nonce, key, "header"),
        f"content (XChaCha20-Poly1305, {len(padded)} bytes)": lambda: aead_open(sealed, associated, nonce, key, "all"),
        "padding": lambda: unpad(padded),
    }
    private, public = os.urandom(32), x_public(os.urandom(32))
    step = {
        "X25519": lambda: diffie_hellman(private, public),
        "X25519 key": lambda: x_public(private),
        "HKDF-SHA-256, 96 bytes": lambda: hkdf(key, key, b"blindpost/v1/ratchet-root\0", 96),
    }
    found = {}
    for title, functions in (("encrypt", encrypt), ("decrypt", decrypt), ("a Diffie-Hellman half step", step)):
        found[title] = {name: _alone(function, rounds, count) for name, function in functions.items()}
        for name, figures in found[title].items():
            if name.startswith("hint"):
                found[title][name] = [figure / 4 for figure in figures]
    return found


def _beside(content: bytes, rounds: int, count: int) -> dict[str, list[float]]:
    """What a client does for each message beside encrypting or decrypting it."""
    pair = Blindpost()
    sender, receiver = pair.ends
    index: HintIndex[int] = HintIndex()
    index.add(0, receiver)
    found: dict[str, list[float]] = {"session.to_bytes": _alone(sender.to_bytes, rounds, count), "hint index": []}
    for _ in range(rounds):
        spent = 0
        for _ in range(count):
            body = sender.encrypt(content, ENVELOPE_ID)
            start = time.process_time_ns()
            if index.find(body) != 0:
                raise AssertionError("the index did not find the session")
            spent += time.process_time_ns() - start
            receiver.decrypt(body, ENVELOPE_ID, NOW_S)
            start = time.process_time_ns()
            index.received(0, receiver, body)
            spent += time.process_time_ns() - start
        found["hint index"].append(spent / count / 1_000)
    return found


def _row(name: str, figures: list[float]) -> str:
    return f"  {name:45} {median(figures):8.2f} µs   ({min(figures):.2f} to {max(figures):.2f})"


def _print_parts(parts: dict[str, dict[str, list[float]]], ours: Rounds) -> None:
    for title, rows in parts.items():
        print(f"\nparts of {title}, each alone" if title in ours else f"\n{title}, each part alone")
        for name, figures in rows.items():
            print(_row(name, figures))
        if title in ours:
            whole, together = median(ours[title]), sum(median(figures) for figures in rows.values())
            print(f"  {'the rest: Python between them':45} {whole - together:8.2f} µs   of {whole:.2f}")


def _pairs(only: str | None) -> list[Pair]:
    pairs: list[Pair] = [Blindpost()]
    for made in (PythonDoubleRatchet, Vodozemac):
        if only is not None and only.lower() != made.__name__.lower():
            continue
        try:
            pairs.append(made())
        except (ImportError, importlib.metadata.PackageNotFoundError) as error:
            print(f"left out: {made.__name__}: {error} (pip install DoubleRatchet vodozemac)")
    return pairs


def main(argv: list[str]) -> int:
    """Measure and print; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks ratchet", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9, help="rounds of which the median is taken (default 9)")
    parser.add_argument("--messages", type=int, default=500, help="messages of a chain in a round (default 500)")
    parser.add_argument("--bytes", type=int, default=1_024, help="content of a message (default 1024)")
    parser.add_argument("--only", help="compare with this peer only: PythonDoubleRatchet or Vodozemac")
    parser.add_argument("--json", action="store_true", help="print every round's figure as JSON too")
    parser.add_argument("--out", type=Path, metavar="DIR", help="write ratchet.json, .svg and .html there")
    options = parser.parse_args(argv)
    content = os.urandom(options.bytes)
    told = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("PyNaCl", "cryptography", "msgspec"))
    print(f"machine: {describe()}\nversions: {told}")
    print(f"{options.rounds} rounds of {options.messages} messages of {options.bytes} bytes")
    print("CPU time, median (least to most)")
    pairs = _pairs(options.only)
    found = asyncio.run(_compare(pairs, content, options.rounds, options.messages))
    for name, rounds in found.items():
        print(f"\n{name}")
        for what, figures in rounds.items():
            print(_row({"ping-pong": "ping-pong, a message, both halves"}.get(what, f"chain, {what}"), figures))
    parts = _parts(content, options.rounds, options.messages)
    _print_parts(parts, found["blindpost"])
    beside = _beside(content, options.rounds, options.messages)
    print("\nbeside it, a message")
    for name, figures in beside.items():
        print(_row(name, figures))
    if options.json:
        print(json.dumps({"ratchets": found, "parts": parts, "beside": beside}))
    if options.out is not None:
        report = _report(argv, found, parts, beside)
        write(report, charts(report), options.out)
    return 0


def _report(
    argv: list[str], found: dict[str, Rounds], parts: dict[str, dict[str, list[float]]], beside: dict[str, list[float]]
) -> Report:
    versions_found = versions((), ("PyNaCl", "cryptography", "msgspec", "DoubleRatchet", "vodozemac"))
    report = new_report("ratchet", command_line("ratchet", argv), 0, facts(), versions_found)
    report.notes.append(_NOTE)
    tables = found | {f"parts: {title}": rows for title, rows in parts.items()} | {"beside a message": beside}
    for title, rows in tables.items():
        case = report.case(title)
        for name, figures in rows.items():
            case.metrics[name] = Metric("µs/message" if title in found else "µs", "less", figures)
    for made in (PythonDoubleRatchet, Vodozemac):
        if not any(made.__name__.lower() in name.replace("-", "").lower() for name in found):
            report.skipped.append(Skipped(made.__name__, "not installed, or not asked for"))
    return report


def charts(report: Report) -> list[Chart]:
    """Each ratchet's CPU, by what it does."""
    cases = [case for case in report.cases if "ping-pong" in case.metrics]
    titles = {"encrypt": "Encrypt, in a chain", "decrypt": "Decrypt, in a chain", "ping-pong": "Ping-pong, both halves"}
    return [bars_of(cases, metric, f"{title}: CPU for each message") for metric, title in titles.items()]
