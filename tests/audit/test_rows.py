"""Rows by column are the rows that were put in; equal values are told apart exactly; files are read as they are."""

from __future__ import annotations

import hashlib
import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit.disclosure import LINE_BYTES_MAX, LOG, Disclosure
from audit.equal_values import distinct, repeated, sort_keys
from audit.errors import BoundError, UnreadableError
from audit.file_view import AHEAD_BYTES, FileView, sha256_of
from audit.rows import EnvelopeRows, LiveEnvelopes, PieceLists, RowsByKey, StoredRows
from audit.schema import TABLES
from audit.store import read_store
from tests.audit.auditing import audit_of, missing_of
from tests.audit.honest import HonestRelay


def column(values: list[bytes]) -> np.ndarray[tuple[int], np.dtype[np.void]]:
    return np.frombuffer(b"".join(values), dtype=np.dtype((np.void, 16)))


# Values that begin alike are what a comparison of first words alone would confuse.
VALUES = st.lists(
    st.tuples(st.sampled_from([b"A" * 8, b"B" * 8, bytes(8)]), st.sampled_from([b"x" * 8, b"y" * 8, bytes(8)])).map(
        b"".join
    ),
    max_size=20,
)


@given(VALUES)
def test_equal_values_are_told_apart_exactly(values: list[bytes]) -> None:
    found = column(values)
    assert distinct(found) == len(set(values))
    assert repeated(found) == [at for at, value in enumerate(values) if values.count(value) > 1]
    keys = sort_keys(found).tolist()
    for one, key in zip(values, keys, strict=True):
        for other, other_key in zip(values, keys, strict=True):
            assert (one == other) == (key == other_key)


def envelopes(ids: list[bytes]) -> EnvelopeRows:
    rows = EnvelopeRows()
    for at, envelope_id in enumerate(ids):
        rows.append((at + 1, at, 5, 1, at, 80), b"m" * 16, envelope_id, bytes(32), b"h" * 72, 0.0, [(at, at + 80)])
    return rows


@given(VALUES)
def test_a_look_up_finds_the_last_row_of_a_value(values: list[bytes]) -> None:
    live = LiveEnvelopes(envelopes(values))
    for value in values:
        assert live[b"m" * 16, value].seq == len(values) - values[::-1].index(value)
    assert live.get((b"n" * 16, values[0] if values else bytes(16))) is None
    assert len(live) == len(set(values)) == len(list(live))


def test_rows_are_those_that_were_put_in() -> None:
    data = memoryview(b"abcdefghij" * 20)
    rows = StoredRows(data, TABLES["lists"])
    rows.append(7, [b"abcd", 3, b"efghijab"], [[(0, 4)], [], [(4, 8), (8, 12)]])
    row = rows[-1]
    assert (row.seq, row.text("account"), row.integer("version"), row.blob("signed_list")) == (
        7,
        "abcd",
        3,
        b"efghijab",
    )
    assert row.values == {"account": "abcd", "version": 3, "signed_list": b"efghijab"}
    assert [row.seq for row in rows] == [row.seq for row in rows[:]] == [7]
    assert (rows.different("account"), rows.different("version")) == (1, 1)
    with pytest.raises(IndexError):
        rows[1]


def test_a_token_that_may_be_empty_keeps_its_length() -> None:
    rows = StoredRows(memoryview(b""), TABLES["tombstones"])
    for seq, token in enumerate((b"", b"t" * 16, b"t" * 15 + b"\0"), start=1):
        rows.append(seq, [bytes([seq]) * 16, b"m" * 16, 1, 2, 3, 4, 1, token], None)
    assert [row.blob("token") for row in rows] == [b"", b"t" * 16, b"t" * 15 + b"\0"]
    by_key = RowsByKey(rows, "key")
    assert by_key[bytes([2]) * 16].seq == 2
    assert bytes(16) not in by_key
    assert len(by_key) == len(list(by_key)) == 3


def test_pieces_are_kept_in_order_of_rows_and_given_in_order_of_the_file() -> None:
    lists = PieceLists()
    lists.append([(50, 60), (10, 20)])
    lists.append([])
    lists.append([(30, 40)])
    assert [lists[at] for at in range(3)] == [((50, 60), (10, 20)), (), ((30, 40),)]
    assert lists.bounds().tolist() == [[10, 20], [30, 40], [50, 60]]


@contextmanager
def opened(path: Path) -> Iterator[FileView]:
    view = FileView(os.open(path, os.O_RDONLY), path.stat().st_size, "a file")
    try:
        yield view
    finally:
        view.close()


def test_a_view_has_the_bytes_of_its_file(tmp_path: Path) -> None:
    data = random.Random(1).randbytes(3 * AHEAD_BYTES)
    (tmp_path / "f").write_bytes(data)
    with opened(tmp_path / "f") as view:
        assert view[:] == data
        for start, end in ((0, 10), (5, 5), (9, 3), (AHEAD_BYTES - 3, AHEAD_BYTES + 3), (-7, None), (100, 10**9)):
            assert view[start:end] == data[start:end]
        assert (view[0], view[-1], view[10:20:3]) == (data[0], data[-1], data[10:20:3])
        assert sha256_of(view) == hashlib.sha256(data).digest()
        with pytest.raises(IndexError):
            view[len(data)]
        assert not view.changed


def test_a_file_that_becomes_shorter_is_an_error_of_ours(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(bytes(10 * AHEAD_BYTES))
    with opened(tmp_path / "f") as view:
        os.truncate(tmp_path / "f", 5)
        with pytest.raises(UnreadableError, match="became shorter"):
            view[AHEAD_BYTES : AHEAD_BYTES + 4]
        assert view.changed


@given(st.binary(max_size=40).map(lambda it: it.replace(b"\r", b"\n")), st.integers(1, 7), st.integers(1, 5))
def test_lines_are_whole_whatever_the_blocks(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, block: int, line: int
) -> None:
    folder = tmp_path_factory.mktemp("lines")
    (folder / "log").mkdir()
    (folder / LOG).write_bytes(data)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("audit.disclosure.BLOCK_BYTES", block)
        patch.setattr("audit.disclosure.LINE_BYTES_MAX", line)
        with Disclosure(folder) as disclosure:
            found = list(disclosure.lines(LOG))
    assert b"".join(piece for _, piece in found) == data
    assert [at for at, _ in found] == [sum(len(piece) for _, piece in found[:i]) for i in range(len(found))]
    assert all(len(piece) <= line + 1 and b"\n" not in piece[:-1] for _, piece in found)


class TestBounds:
    """What an honest and busy relay may reach is no finding."""

    def test_a_log_larger_than_what_is_read_whole_is_audited(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        relay = HonestRelay(people=2, one_time_prekeys=1).story_of_two()
        monkeypatch.setattr("audit.disclosure.SMALL_FILE_BYTES_MAX", 100_000)
        relay.log = [*relay.log, *["checkpointed pages=12"] * 3_000]
        report = audit_of(relay, tmp_path)
        assert report.exit_status == 0
        assert report.file_sizes[LOG] > 100_000

    def test_a_file_beyond_the_bound_is_incomplete_and_thorough_reads_it(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        relay = HonestRelay(people=2, one_time_prekeys=1).story_of_two()
        monkeypatch.setattr("audit.verifier.FILE_BYTES_MAX", 50_000)
        report = audit_of(relay, tmp_path / "bounded")
        assert report.exit_status == 2
        assert "at most 50,000 are read; audit with --thorough" in missing_of(report)
        assert audit_of(relay, tmp_path / "thorough", thorough=True).exit_status == 0

    def test_more_rows_than_memory_holds_are_incomplete(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        relay = HonestRelay(people=2, one_time_prekeys=1).story_of_two()
        folder = relay.disclose(tmp_path / "d")
        with pytest.raises(BoundError, match="more rows than"):
            read_store(memoryview((folder / "store/store.sqlite").read_bytes()), 1_000)
        monkeypatch.setattr("audit.case.ROWS_BYTES_MAX", 1_000)
        report = audit_of(relay, tmp_path / "bounded")
        assert report.exit_status == 2
        assert "a store that was read to its end" in missing_of(report)

    def test_the_longest_line_is_far_below_the_bound(self) -> None:
        longest = f"2015-11-30T10:20:00Z committed index={2**40} envelopes=1088 acks=1048576 bytes={2**40}\n"
        assert len(longest) < LINE_BYTES_MAX / 8
