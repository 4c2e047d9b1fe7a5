"""What is held about a person: one schema behind the authority's answer, the person's copy and the documents."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest

from audit.order_log import PERSONAL_COLUMNS
from audit.schema import TABLES as AUDITED
from relay.control import Found
from relay.core.docket import Scope, ScopeKind
from relay.core.events import (
    PREKEY_KEM,
    PREKEY_ONE_TIME,
    PREKEY_SIGNED,
    REASON_ACKED,
    REASON_CLOSED,
    REASON_WITHDRAWN,
    Snapshot,
)
from relay.held import NobodyThere, find, held_of
from relay.store.schema import TABLES
from tests.relay.world import a_pair
from wire import held as schema
from wire.codec import encode
from wire.errors import FormatError
from wire.held import HELD, Held, HeldColumn, HeldTable, TableRows, column_names, held_markdown, held_text, read_held
from wire.limits import HELD_BYTES_MAX

DOCS = Path(__file__).parents[2] / "docs" / "orders.md"
NAMES_NOBODY = {"commits", "tenants", "used_tokens", "rotations", "relay"}


def snapshot() -> Snapshot:
    pair = a_pair()
    pair.world.send(pair.ana, pair.world.submit(pair.ana, pair.bob.account, pair.world.mail(pair.bob)))
    return pair.world.store.load()


def test_every_column_of_the_store_that_is_about_a_person_is_in_the_schema() -> None:
    assert {table.name for table in HELD} | NAMES_NOBODY == set(TABLES)
    for table in HELD:
        statement = TABLES[table.name]
        stored = [part.split()[0] for part in statement[statement.index("(") + 1 :].split(", ")]
        wanted = ["body_bytes" if name == "body" else name for name in stored]
        assert [column.name for column in table.columns] == wanted


def test_the_verifiers_own_copy_is_the_same() -> None:
    assert set(column_names()) == PERSONAL_COLUMNS
    assert {table.name for table in HELD} < set(AUDITED)


def test_person_and_authority_get_the_same_bytes() -> None:
    state = snapshot()
    account = state.mailboxes[0].account
    by_mailbox = find(state, Scope(ScopeKind.MAILBOX, state.mailboxes[0].mailbox.hex()))
    by_account = find(state, Scope(ScopeKind.ACCOUNT, account))
    assert by_account.held == by_mailbox.held == (held_of(state, account).data,)
    assert read_held(by_account.held[0]).row_count == held_of(state, account).row_count


def test_nobody_else_is_in_a_record() -> None:
    state = snapshot()
    first, second = (row.account for row in state.mailboxes[:2])
    data = held_of(state, first).data
    assert second.encode() not in data
    assert all(row.mailbox not in data for row in state.mailboxes if row.account == second)


def test_scopes_find_what_they_cover() -> None:
    state = snapshot()
    assert find(state, Scope()).mailboxes == len(state.mailboxes)
    assert find(state, Scope(ScopeKind.TENANT, "acme.example")).mailboxes == len(state.mailboxes)
    assert find(state, Scope(ScopeKind.ACCOUNT, "nobody@acme.example")) == Found(0, 0, 0, ())
    with pytest.raises(NobodyThere):
        held_of(state, "nobody@acme.example")


def test_a_column_that_is_added_shows_in_the_answer_the_persons_copy_and_the_documents(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    state = snapshot()
    account = state.mailboxes[0].account
    before = held_of(state, account), held_text(held_of(state, account)), held_markdown()
    column = HeldColumn("last_seen_day", "when the device was last seen", "day", "nobody")
    mailboxes = replace(HELD[0], columns=(*HELD[0].columns, column))

    class Row(NamedTuple):
        seq: int
        mailbox: bytes
        device_key: bytes
        account: str
        enrolled_day: int
        newest: int
        closed: int
        last_seen_day: int

    state.mailboxes = [Row(*row, 16_769) for row in state.mailboxes]  # type: ignore[misc]
    monkeypatch.setattr(schema, "HELD", (mailboxes, *HELD[1:]))
    record = held_of(state, account)
    after = record, held_text(record), held_markdown()
    assert record.tables[0].rows[0][-1] == 16_769
    assert "mailboxes.last_seen_day" in column_names()
    assert "last_seen_day: when the device was last seen (day" in after[1]
    assert "| mailboxes | last_seen_day | when the device was last seen | day | nobody |" in after[2]
    assert all(one != other for one, other in zip(before, after, strict=True))
    with pytest.raises(FormatError, match="other columns"):
        read_held(before[0].data)


def test_attack_an_answer_with_more_or_less_than_the_schema_is_refused() -> None:
    state = snapshot()
    honest = held_of(state, state.mailboxes[0].account)
    table = honest.tables[0]
    more = TableRows(table.table, (*table.columns, "location"), tuple((*row, "Karachi") for row in table.rows))
    longer = TableRows(table.table, table.columns, tuple((*row, 1) for row in table.rows))
    strange = TableRows(table.table, table.columns, tuple((*row[:-1], 1.5) for row in table.rows))
    long = TableRows(table.table, table.columns, tuple((*row[:-1], bytes(9_000)) for row in table.rows))
    for tables in (
        (strange, *honest.tables[1:]),
        (long, *honest.tables[1:]),
        (more, *honest.tables[1:]),
        (longer, *honest.tables[1:]),
        honest.tables[1:],
    ):
        with pytest.raises(FormatError):
            read_held(encode(Held(honest.account, tables)))
    with pytest.raises(FormatError):
        read_held(honest.data + b"\0")
    with pytest.raises(FormatError):
        read_held(bytes(HELD_BYTES_MAX + 1))


def test_the_documents_have_the_schema_as_it_is() -> None:
    assert held_markdown() in DOCS.read_text(encoding="utf-8")


def test_days_moments_and_codes_are_said_in_words_and_a_value_out_of_their_range_as_it_stands() -> None:
    reasons = {REASON_ACKED: "acknowledged", REASON_WITHDRAWN: "withdrawn", REASON_CLOSED: "closed"}
    kinds = {PREKEY_SIGNED: "signed", PREKEY_KEM: "last-resort", PREKEY_ONE_TIME: "one-time"}
    columns = {f"{table.name}.{column.name}": column for table in HELD for column in table.columns}
    for name, words in (
        ("tombstones.reason", reasons),
        ("prekeys.kind", kinds),
        ("mailboxes.closed", {0: "no", 1: "yes"}),
        ("mailboxes.enrolled_day", {16_769: "2015-11-30"}),
        ("envelopes.expiry", {1_448_841_600: "2015-11-30 00:00Z"}),
        ("tombstones.expiry", {1_448_841_600: "2015-11-30 00:00Z"}),
    ):
        said = columns[name].words
        assert said is not None
        assert {number: said(number) for number in words} == words
        assert said(2**63) == str(2**63)
        assert said(-(2**62)) == str(-(2**62))
    state = snapshot()
    text = held_text(held_of(state, state.mailboxes[0].account))
    assert "    signed" in text
    assert "in each row" in text


def test_a_table_without_rows_is_shown_without_any() -> None:
    empty = Held("ana@acme.example", tuple(TableRows(t.name, tuple(c.name for c in t.columns), ()) for t in HELD))
    assert "envelopes: 0 rows" in held_text(read_held(empty.data))
    assert isinstance(HELD[0], HeldTable)
