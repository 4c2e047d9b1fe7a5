"""One suite for every store: what a batch does, whole or not at all, against a dictionary."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from relay.core.events import (
    Batch,
    CommitRow,
    EnvelopeRow,
    ListRow,
    MailboxRow,
    PrekeyRow,
    RotationRow,
    TenantRow,
    TombstoneRow,
    UsedTokenRow,
)
from relay.store.memory import MemoryStore
from relay.store.protocol import Store, StoreError
from relay.store.sqlite import SqliteStore

RELAY_ID = bytes(range(16))
Make = Callable[[], Store]
_names = itertools.count()


@pytest.fixture(params=["memory", "sqlite"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Make]:
    """Makes new stores of one kind, and closes them."""
    made: list[Store] = []

    def new() -> Store:
        store: Store
        if request.param == "memory":
            store = MemoryStore(RELAY_ID)
        else:
            store = SqliteStore(tmp_path / f"{next(_names)}.sqlite", RELAY_ID)
        made.append(store)
        return store

    yield new
    for store in made:
        store.close()


def envelope(seq: int, body: bytes = b"b" * 400, number: int = 1) -> EnvelopeRow:
    return EnvelopeRow(seq, b"m" * 16, number, seq.to_bytes(16, "big"), 1_500_000_000, 1, 0, body)


def tombstone(seq: int) -> TombstoneRow:
    return TombstoneRow(seq, b"k" * 16, b"m" * 16, 1_500_000_000, 1, 0, 1, 1, b"t" * 16)


def test_new_store_holds_its_relay_and_nothing_else(make: Make) -> None:
    snapshot = make().load()
    assert snapshot.relay == {"relay_id": RELAY_ID, "partition": b"\0\0", "format": b"1"}
    assert not any(getattr(snapshot, table) for table in TABLES)
    assert not snapshot.commits


def test_batch_that_was_begun_is_committed_once(make: Make) -> None:
    store = make()
    batch = Batch(envelopes=[envelope(1)])
    store.begin(batch)
    assert store.read([1]) == [None], "it is not there before it is committed"
    store.commit(batch)
    store.commit(Batch(envelopes=[envelope(2)]))
    assert store.read([1, 2]) == [b"b" * 400] * 2


def test_every_kind_of_row_comes_back_as_it_was(make: Make) -> None:
    store = make()
    batch = Batch(
        envelopes=[envelope(1)],
        tombstones=[tombstone(1)],
        commit=CommitRow(1, b"header", b"s" * 64, b"l" * 32),
        mailboxes=[MailboxRow(1, b"m" * 16, b"d" * 32, "ana@acme.example", 16_000, 0, 0)],
        lists=[ListRow(1, "ana@acme.example", 1, b"list")],
        prekeys=[PrekeyRow(1, b"d" * 32, 3, b"i" * 16, b"record")],
        tenants=[TenantRow(1, "acme.example", b"a" * 32)],
        used_tokens=[UsedTokenRow(1, b"n" * 16, 1_500_000_000)],
        rotations=[RotationRow(1, b"rotation")],
    )
    store.commit(batch)
    store.checkpoint()
    snapshot = store.load()
    assert snapshot.envelopes == [(*envelope(1)[:7], 400)]
    assert snapshot.commits == [batch.commit]
    for table in TABLES[1:]:
        assert getattr(snapshot, table) == getattr(batch, table), table
        assert type(getattr(snapshot, table)[0]) is type(getattr(batch, table)[0])


def test_updates_and_erasures(make: Make) -> None:
    store = make()
    rows = [MailboxRow(seq, bytes([seq]) * 16, b"d" * 32, "ana@acme.example", 16_000, 0, 0) for seq in (1, 2)]
    store.commit(Batch(mailboxes=rows, envelopes=[envelope(1), envelope(2)], tombstones=[tombstone(1)]))
    store.commit(
        Batch(envelopes_erased=[1, 99], tombstones_erased=[1], mailboxes_newest=[(7, 2)], mailboxes_closed=[1])
    )
    snapshot = store.load()
    assert [row.seq for row in snapshot.envelopes] == [2]
    assert not snapshot.tombstones
    assert snapshot.mailboxes == [rows[0]._replace(closed=1), rows[1]._replace(newest=7)]


def test_mailbox_made_and_closed_in_one_batch(make: Make) -> None:
    store = make()
    row = MailboxRow(1, b"m" * 16, b"d" * 32, "ana@acme.example", 16_000, 0, 0)
    store.commit(Batch(mailboxes=[row], mailboxes_closed=[1]))
    assert store.load().mailboxes == [row._replace(closed=1)]


def test_old_commits_are_pruned_from_the_low_end(make: Make) -> None:
    store = make()
    for idx in range(1, 6):
        store.commit(Batch(commit=CommitRow(idx, b"h", b"s" * 64, b"l" * 32)))
    store.commit(Batch(commits_below=4))
    assert [row.idx for row in store.load().commits] == [4, 5]


def test_reads_answer_in_the_order_asked_and_none_for_what_is_gone(make: Make) -> None:
    store = make()
    bodies = {seq: bytes([seq % 251]) * (400 + seq) for seq in range(1, 601)}
    store.commit(Batch(envelopes=[envelope(seq, body) for seq, body in bodies.items()]))
    store.commit(Batch(envelopes_erased=[3]))
    asked = [5, 3, 601, *range(600, 300, -1), 5]
    assert store.read(asked) == [None if seq in (3, 601) else bodies[seq] for seq in asked]
    assert store.read([]) == []


def test_batch_with_one_row_that_cannot_be_stored_stores_nothing(make: Make) -> None:
    store = make()
    store.commit(Batch(envelopes=[envelope(1)], tenants=[TenantRow(1, "a.example", b"a" * 32)]))
    before = store.load()
    with pytest.raises(StoreError):
        store.commit(Batch(envelopes_erased=[1], envelopes=[envelope(2)], tenants=[TenantRow(1, "b.example", b"")]))
    assert store.load() == before
    assert store.read([1, 2]) == [b"b" * 400, None]
    store.commit(Batch(envelopes=[envelope(2)]))
    assert [row.seq for row in store.load().envelopes] == [1, 2]


def test_commit_index_is_used_once(make: Make) -> None:
    store = make()
    store.commit(Batch(commit=CommitRow(1, b"h", b"s" * 64, b"l" * 32)))
    with pytest.raises(StoreError):
        store.commit(Batch(commit=CommitRow(1, b"other", b"s" * 64, b"l" * 32)))
    assert store.load().commits[0].header == b"h"


def test_closed_store_refuses_and_closing_twice_is_harmless(make: Make) -> None:
    store = make()
    store.close()
    store.close()
    for call in (store.load, lambda: store.commit(Batch()), lambda: store.read([1]), store.checkpoint):
        with pytest.raises(StoreError, match="is closed"):
            call()


def test_both_stores_have_the_same_methods_in_the_same_order() -> None:
    def public(kind: type) -> list[str]:
        return [name for name in vars(kind) if not name.startswith("_")]

    assert public(MemoryStore) == public(SqliteStore) == [name for name in public(Store) if not name.startswith("_")]
    assert MemoryStore.__bases__ == SqliteStore.__bases__ == (object,)


TABLES = ["envelopes", "tombstones", "mailboxes", "lists", "prekeys", "tenants", "used_tokens", "rotations"]


class Step(NamedTuple):
    """What one batch of the property inserts and erases, as fractions of what there is."""

    inserts: dict[str, int]
    erase: int
    newest: int
    prune: int
    fails: bool


STEPS = st.lists(
    st.builds(
        Step,
        st.dictionaries(st.sampled_from(TABLES), st.integers(0, 4)),
        st.integers(0, 2**16),
        st.integers(0, 9),
        st.integers(0, 3),
        st.booleans(),
    ),
    max_size=12,
)


def a_row(table: str, seq: int) -> Any:
    rows: dict[str, Any] = {
        "envelopes": envelope(seq, bytes([seq % 256]) * ((seq * 37) % 700 + 400), seq),
        "tombstones": tombstone(seq),
        "mailboxes": MailboxRow(seq, seq.to_bytes(16, "big"), b"d" * 32, "ana@acme.example", 16_000, 0, 0),
        "lists": ListRow(seq, "ana@acme.example", seq, bytes(seq % 50)),
        "prekeys": PrekeyRow(seq, b"d" * 32, 1 + seq % 3, b"i" * 16, bytes(seq % 90)),
        "tenants": TenantRow(seq, f"t{seq}.example", b"a" * 32),
        "used_tokens": UsedTokenRow(seq, b"n" * 16, seq),
        "rotations": RotationRow(seq, b"rotation"),
    }
    return rows[table]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(steps=STEPS)
def test_any_sequence_of_batches_agrees_with_a_dictionary(make: Make, steps: list[Step]) -> None:
    store = make()
    model: dict[str, dict[int, Any]] = {table: {} for table in TABLES}
    commits: dict[int, CommitRow] = {}
    seq = 0
    for step in steps:
        batch, after = Batch(), {table: dict(rows) for table, rows in model.items()}
        for table in ("envelopes", "tombstones", "prekeys", "used_tokens"):
            for bit, held in enumerate(sorted(model[table])):
                if step.erase >> (bit % 16) & 1:
                    getattr(batch, f"{table}_erased").append(held)
                    del after[table][held]
        for table, count in step.inserts.items():
            for _ in range(count):
                seq += 1
                row = a_row(table, seq)
                getattr(batch, table).append(row)
                after[table][seq] = row
        for held in sorted(after["mailboxes"])[: step.newest]:
            batch.mailboxes_newest.append((step.newest, held))
            after["mailboxes"][held] = after["mailboxes"][held]._replace(newest=step.newest)
        if step.fails:
            batch.tenants.extend([TenantRow(10_000, "twice.example", b""), TenantRow(10_000, "twice.example", b"")])
            with pytest.raises(StoreError):
                store.commit(batch)
            continue
        seq += 1
        batch.commit = CommitRow(seq, b"h", b"s" * 64, b"l" * 32)
        batch.commits_below = max(commits, default=0) - step.prune
        commits = {idx: row for idx, row in commits.items() if idx >= batch.commits_below}
        commits[seq] = batch.commit
        store.commit(batch)
        model = after
        if seq % 3 == 0:
            store.checkpoint()
    snapshot = store.load()
    for table in TABLES[1:]:
        assert getattr(snapshot, table) == [row for _seq, row in sorted(model[table].items())], table
    assert snapshot.commits == [row for _idx, row in sorted(commits.items())]
    envelopes = [row for _seq, row in sorted(model["envelopes"].items())]
    assert snapshot.envelopes == [(*row[:7], len(row.body)) for row in envelopes]
    assert store.read([row.seq for row in envelopes]) == [row.body for row in envelopes]
    store.close()
