"""Stores: SQLite as the relay uses it, SQLite without erasure, and LMDB, under the commits that a busy relay makes.

In a steady state each commit inserts so many envelopes, erases as many older ones and leaves their tombstones, and is
on the disk when it returns; `read` gives bodies back as a delivery does. SQLite without `secure_delete` shows what
erasure costs. LMDB (PyPI `lmdb`) keeps the same rows under integer keys and syncs each commit; it erases nothing: freed
pages keep their bytes until they are used again, so it could not be the relay's store as it is.
"""

import importlib
import importlib.util
import os
import random
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from benchmarks.charts import Bars, Chart, Row
from benchmarks.machine import facts, versions
from benchmarks.processes import usage_of
from benchmarks.progress import progress
from benchmarks.report import Case, Report, Skipped, new_report
from benchmarks.running import command_line, finish, guarded, parser_of, words_of
from relay.core.events import Batch, CommitRow, EnvelopeRow, TombstoneRow
from relay.store.sqlite import SqliteStore
from wire.codec import decode, encode

__all__ = ["LmdbRows", "main"]

_EXPIRY = 4_000_000_000
_COMMITS_HELD = 8
"""Each commit erases what this many before it stored."""
_LMDB_BYTES_MAX = 16 * 2**30


class Rows(Protocol):
    """What is measured of a store."""

    def commit(self, batch: Batch) -> None:
        """Apply a batch; durable on return."""

    def read(self, seqs: Sequence[int]) -> list[bytes | None]:
        """Bodies."""

    def close(self) -> None:
        """Let go of the files."""


class LmdbRows:
    """Envelopes, tombstones and commits in LMDB, one database each, keys in the order of insertion.

    Args:
        folder: a folder for its files.
    """

    def __init__(self, folder: Path) -> None:
        lmdb: Any = importlib.import_module("lmdb")
        self._environment: Any = lmdb.open(str(folder), map_size=_LMDB_BYTES_MAX, max_dbs=3, sync=True, metasync=True)
        self._tables = {
            name: self._environment.open_db(name.encode(), integerkey=False)
            for name in ("envelopes", "tombstones", "commits")
        }

    def commit(self, batch: Batch) -> None:
        """See `Rows.commit`."""
        with self._environment.begin(write=True) as transaction:
            for seq in batch.envelopes_erased:
                transaction.delete(_key(seq), db=self._tables["envelopes"])
            for name, rows in (("envelopes", batch.envelopes), ("tombstones", batch.tombstones)):
                for row in rows:
                    transaction.put(_key(row[0]), encode(row[1:]), db=self._tables[name], append=True)
            if batch.commit is not None:
                commit = batch.commit
                transaction.put(_key(commit.idx), encode(commit[1:]), db=self._tables["commits"], append=True)

    def read(self, seqs: Sequence[int]) -> list[bytes | None]:
        """See `Rows.read`."""
        found: list[bytes | None] = []
        with self._environment.begin() as transaction:
            for seq in seqs:
                value = transaction.get(_key(seq), db=self._tables["envelopes"])
                row = None if value is None else decode(tuple[bytes, int, bytes, int, int, int, bytes], value, "row")
                found.append(None if row is None else row[-1])
        return found

    def close(self) -> None:
        """See `Rows.close`."""
        self._environment.close()


def _key(seq: int) -> bytes:
    return seq.to_bytes(8, "big")


def _sqlite(folder: Path) -> Rows:
    return SqliteStore(folder / "store.sqlite", bytes(16))


def _sqlite_without_erasure(folder: Path) -> Rows:
    store = SqliteStore(folder / "store.sqlite", bytes(16))
    store._writer.execute("PRAGMA secure_delete = OFF")
    return store


STORES: dict[str, tuple[str, Callable[[Path], Rows]]] = {
    "sqlite": ("SQLite, as the relay uses it", _sqlite),
    "sqlite-without-erasure": ("SQLite, without secure_delete", _sqlite_without_erasure),
    "lmdb": ("LMDB, which erases nothing", LmdbRows),
}


def main(argv: list[str]) -> int:
    """Run the benchmark; returns the exit status."""
    return guarded(lambda: _main(argv))


def _main(argv: list[str]) -> int:
    parser = parser_of("store", __doc__ or "", rounds=3)
    parser.add_argument("--commits", type=words_of, default=["1", "64", "512"], help="envelopes a commit")
    parser.add_argument("--messages", type=int, default=20_000, help="envelopes a round; 1,000 at most one a commit")
    parser.add_argument("--body-bytes", type=int, default=1_232, help="default 1232")
    parser.add_argument("--stores", type=words_of, default=list(STORES), help=", ".join(STORES))
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="blindpost-bench-") as folder:
        machine = facts(Path(folder))
    found = versions((), ("msgspec", "lmdb"))
    report = new_report("store", command_line("store", argv), options.seed, machine, found)
    stores = list(options.stores)
    if "lmdb" in stores and importlib.util.find_spec("lmdb") is None:
        report.skipped.append(Skipped("LMDB", "its binding is not installed (pip install lmdb)"))
        stores.remove("lmdb")
    sizes = [int(one) for one in options.commits]
    with progress(options.rounds * len(sizes) * len(stores)) as bar:
        for number in range(options.rounds):
            for size in sizes:
                for name in stores:
                    title, make = STORES[name]
                    bar.step(f"{title}, {size} a commit, round {number + 1}")
                    case = report.case(f"{title}, {size} a commit", store=name, envelopes_a_commit=size)
                    count = min(options.messages, 1_000 * size) if size < 20 else options.messages
                    with tempfile.TemporaryDirectory(prefix="blindpost-bench-") as folder:
                        _round(case, make(Path(folder)), size, count, options.body_bytes, options.seed + number)
                    bar.done()
    return finish(report, charts(report), options.out)


def _round(case: Case, rows: Rows, size: int, count: int, body_bytes: int, seed: int) -> None:
    rng = random.Random(seed)
    batches = _batches(size, count, body_bytes, rng)
    own = os.getpid()
    try:
        before, start_s = usage_of(own), time.perf_counter()
        for batch in batches:
            rows.commit(batch)
        seconds, used = time.perf_counter() - start_s, usage_of(own) - before
        held = [row for batch in batches[-_COMMITS_HELD:] for row in batch.envelopes]
        rng.shuffle(held)
        start_s = time.perf_counter()
        for start in range(0, len(held), 64):
            some = held[start : start + 64]
            if rows.read([row.seq for row in some]) != [row.body for row in some]:
                raise AssertionError("the store gave back another body")
        read_s = time.perf_counter() - start_s
    finally:
        rows.close()
    case.add("committed", "envelopes/s", "more", count / seconds)
    case.add("a commit takes", "ms", "less", seconds * 1_000 / len(batches))
    case.add("CPU", "µs/envelope", "less", used.cpu_s * 1e6 / count)
    case.add("written to disk", "bytes/envelope", "less", used.written_bytes / count)
    case.add("read", "µs/envelope", "less", read_s * 1e6 / len(held))


def _batches(size: int, count: int, body_bytes: int, rng: random.Random) -> list[Batch]:
    """Commits of a relay at work: each erases what an earlier one stored, and leaves tombstones."""
    batches: list[Batch] = []
    for index, start in enumerate(range(0, count, size), 1):
        batch = Batch()
        for leaf in range(min(size, count - start)):
            seq, mailbox = start + leaf + 1, rng.randbytes(16)
            body = rng.randbytes(body_bytes)
            batch.envelopes.append(EnvelopeRow(seq, mailbox, 1, rng.randbytes(16), _EXPIRY, index, leaf, body))
        if len(batches) >= _COMMITS_HELD:
            for row in batches[-_COMMITS_HELD].envelopes:
                token, key = rng.randbytes(16), rng.randbytes(16)
                batch.envelopes_erased.append(row.seq)
                tombstone = TombstoneRow(row.seq, key, row.mailbox, _EXPIRY, row.commit_index, row.leaf, 1, 1, token)
                batch.tombstones.append(tombstone)
        batch.commit = CommitRow(index, rng.randbytes(130), rng.randbytes(64), rng.randbytes(32 * len(batch.envelopes)))
        batches.append(batch)
    return batches


def _store_of(case: Case) -> str:
    return str(case.dimensions["store"])


def charts(report: Report) -> list[Chart]:
    """Speed and CPU by store and size of commit."""
    groups = {name: number for number, name in enumerate(STORES)}
    found: list[Chart] = []
    for metric, title in (
        ("committed", "Envelopes committed a second, each commit on the disk"),
        ("CPU", "CPU for each envelope committed, an older one erased, and its tombstone"),
    ):
        bars = [
            Row(
                case.name,
                case.metrics[metric].rounds,
                case.metrics[metric].median,
                groups[str(case.dimensions["store"])],
            )
            for case in report.cases
        ]
        first = report.cases[0].metrics[metric]
        found.append(Bars(title, first.unit, first.better, bars, (), [title for title, _ in STORES.values()]))
    return found
