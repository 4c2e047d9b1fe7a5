"""The commit log's own tree against wire's, which walks up from each leaf and is slower; expiry buckets; the outbox."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.core.commitlog import CommitLog, paths_in, tree_of
from relay.core.events import CommitRow, Snapshot
from relay.core.expiry import ExpiryBuckets
from relay.core.outbox import Outbox
from wire.codec import encode
from wire.commands import Delivered, Delivery, Directory, Done, Receipts, Refusal, RelayCommand, decode_relay_commands
from wire.errors import FormatError
from wire.identity import SignedList
from wire.limits import COMMANDS_PER_FRAME_MAX, FRAME_BYTES_MAX
from wire.link import FRAME_OVERHEAD_BYTES
from wire.merkle import path_of, root_of, verify_path
from wire.receipt import ReceiptEntry


@given(leaves=st.lists(st.binary(min_size=32, max_size=32), min_size=1, max_size=70))
def test_tree_and_paths_are_those_of_the_protocol(leaves: list[bytes]) -> None:
    tree = tree_of(leaves)
    (root,) = tree[-1]
    assert root == root_of(leaves)
    paths = paths_in(tree)
    assert paths == [path_of(leaves, index) for index in range(len(leaves))]
    for index, path in enumerate(paths):
        verify_path(leaves[index], index, len(leaves), path, root)


def test_envelope_of_a_commit_that_is_not_stored_is_refused() -> None:
    with pytest.raises(FormatError, match="7 is named by an envelope or tombstone"):
        CommitLog(bytes(16), 0, Snapshot()).hold(7)


def test_header_that_does_not_decode_is_refused() -> None:
    with pytest.raises(FormatError, match="commit header"):
        CommitLog(bytes(16), 0, Snapshot(commits=[CommitRow(1, b"\xc0", bytes(64), bytes(32))]))


@given(
    items=st.lists(st.tuples(st.integers(0, 2_000), st.integers(0, 99)), max_size=40),
    steps=st.lists(st.integers(0, 700), max_size=8),
)
def test_nothing_expires_early_and_nothing_a_minute_late(items: list[tuple[int, int]], steps: list[int]) -> None:
    buckets: ExpiryBuckets[tuple[int, int]] = ExpiryBuckets()
    for item in items:
        buckets.add(item[0], item)
    waiting, now_s = sorted(items), 0
    for step in steps:
        now_s += step
        buckets.gather(now_s)
        came = []
        while (one := buckets.take()) is not None:
            came.append(one)
        assert all(expiry <= now_s for expiry, _name in came)
        for one in came:
            waiting.remove(one)
        assert all(expiry > now_s - 60 for expiry, _name in waiting)
        following = buckets.next_s()
        assert (following is None) == (not waiting)
        assert following is None or following > now_s


def test_what_is_given_back_comes_first_and_in_order() -> None:
    buckets: ExpiryBuckets[str] = ExpiryBuckets()
    for name in "abcd":
        buckets.add(60, name)
    assert buckets.gather(60)
    taken = [buckets.take(), buckets.take()]
    assert taken == ["a", "b"]
    buckets.give_back(["a", "b"])
    assert [buckets.take() for _ in range(5)] == ["a", "b", "c", "d", None]


def flat(frames: list[list[RelayCommand]]) -> list[object]:
    """What the frames say, in pieces that do not depend on how it was packed."""
    said: list[object] = []
    for frame in frames:
        encoded = encode(frame)
        assert len(encoded) <= FRAME_BYTES_MAX - FRAME_OVERHEAD_BYTES
        assert len(frame) <= COMMANDS_PER_FRAME_MAX
        assert list(decode_relay_commands(encoded)) == frame
        for command in frame:
            if isinstance(command, Receipts):
                said.extend((command.header, entry) for entry in command.entries)
            elif isinstance(command, Delivery):
                said.extend((command.mailbox, item) for item in command.envelopes)
            elif isinstance(command, Done):
                said.extend(command.refs)
            else:
                said.append(command)
    return said


ITEMS = st.one_of(
    st.tuples(st.just("done"), st.integers(0, 2**32 - 1), st.integers(1, 40)),
    st.tuples(st.just("refusal"), st.integers(0, 2**32 - 1), st.integers(1, 300)),
    st.tuples(st.just("directory"), st.integers(0, 9), st.integers(1, 3)),
    st.tuples(st.just("receipt"), st.integers(0, 3), st.integers(1, 700)),
    st.tuples(st.just("delivery"), st.integers(0, 300), st.integers(1, 3)),
    st.tuples(st.just("large delivery"), st.integers(0, 2), st.integers(1, 3)),
)


@given(items=st.lists(ITEMS, max_size=25))
def test_everything_that_waits_is_packed_once_within_the_limits(items: list[tuple[str, int, int]]) -> None:
    outbox = Outbox()
    said: list[object] = []
    number = 0
    for kind, which, count in items:
        for _ in range(count):
            number += 1
            if kind == "done":
                outbox.done(which)
                said.append(which)
            elif kind in {"refusal", "directory"}:
                answer: Refusal | Directory = Refusal(which, 3, "list_hash" * 14, 2**63 - 1, 2**32 - 1, bytes(4_200))
                if kind == "directory":
                    answer = Directory(which, SignedList(bytes(4_096), bytes(64)), ())
                outbox.other(answer)
                said.append(answer)
            elif kind == "receipt":
                entry = ReceiptEntry(2**32 - 1, 63, 2**40 + number, number, bytes(32 * 11))
                header = bytes([which]) * 130
                outbox.receipt(header, bytes(64), entry)
                said.append((header, entry))
            else:
                body = bytes(196_696 if kind == "large delivery" else 400)
                mailbox = which.to_bytes(16, "big")
                delivered = Delivered(2**40 + number, bytes(16), 2**40, body)
                outbox.delivery(mailbox, delivered)
                said.append((mailbox, delivered))
    assert sorted(map(repr, flat(outbox.frames()))) == sorted(map(repr, said))
    assert outbox.frames() == []
