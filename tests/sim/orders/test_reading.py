"""What a stranger finds in a log that was tampered with, and what is missing in one that was not written."""

from collections.abc import Callable
from pathlib import Path

import pytest

from relay.logkey import LOG_FOLDER, log_key_of, signer_of
from relay.orders import Desk
from relay.tlog import TransparencyLog
from sim.orders.reading import gaps
from tests.sim.orders.desks import ORDERS, Filing, filing
from wire.codec import encode
from wire.leaves import ChangeLeaf
from wire.note import Checkpoint, sign_checkpoint
from wire.tlog import EMPTY_ROOT


def append(filed: Filing, *leaves: bytes) -> None:
    """As an operator with the log's key could, by hand."""
    folder = filed.home.path / LOG_FOLDER
    log = TransparencyLog.open(folder, log_key_of(filed.home.path))
    log.append(list(leaves), signer_of(filed.home))


def test_a_log_of_all_that_happened_holds_and_has_no_gap(tmp_path: Path) -> None:
    filed = filing(tmp_path, ORDERS)
    log = filed.run()
    assert log.holds, (log.findings, log.gaps)
    assert (log.served, log.answered, log.exits) == (5, 4, 3)
    sizes = [reading.size for reading in log.readings]
    assert sizes == sorted(sizes)
    assert sizes[0] == 1
    assert sizes[-1] == filed.desk_size()


@pytest.mark.parametrize("lost", range(5))
def test_an_order_that_the_run_has_not_seen_or_the_log_has_not_is_a_gap(tmp_path: Path, lost: int) -> None:
    filed = filing(tmp_path, ORDERS)
    filed.run()
    expected = list(filed.clerk._expected.values())
    read = filed.clerk._reader.log
    fewer = [one for one in expected if one.number != lost]
    assert any("were served" in gap for gap in gaps(fewer, filed.clerk._exits, read))
    read.orders = [order for order in read.orders if order.number != lost]
    assert gaps(expected, filed.clerk._exits, read) == [f"order {expected[lost].order} has no leaf"]


def no_answer(filed: Filing) -> None:
    filed.clerk._reader.log.orders[0].answered_at = None


def no_extension(filed: Filing) -> None:
    filed.clerk._reader.log.orders[0].changes.clear()


def other_issuer(filed: Filing) -> None:
    filed.clerk._reader.log.orders[0].issuer = "somebody else"


def not_opened(filed: Filing) -> None:
    filed.clerk._reader.log.orders[2].opened = False


def no_exit(filed: Filing) -> None:
    filed.clerk._reader.log.exits.pop()


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (no_answer, "has no answer"),
        (no_extension, "the log says otherwise"),
        (other_issuer, "is another than was served"),
        (not_opened, "sealed or opened otherwise"),
        (no_exit, "has the exits"),
    ],
)
def test_whatever_is_missing_in_a_log_is_a_gap(tmp_path: Path, spoil: Callable[[Filing], None], says: str) -> None:
    filed = filing(tmp_path, ORDERS)
    filed.run()
    assert filed.clerk.gaps() == []
    spoil(filed)
    (gap,) = filed.clerk.gaps()
    assert says in gap


def test_a_log_that_was_cut_off_and_written_otherwise_is_found_by_the_checkpoint_before(tmp_path: Path) -> None:
    filed = filing(tmp_path, ORDERS)
    assert filed.run().holds
    folder = filed.home.path / LOG_FOLDER
    entries = TransparencyLog.open(folder, log_key_of(filed.home.path)).entries()
    for name in sorted(folder.rglob("*"), reverse=True):
        name.unlink() if name.is_file() else name.rmdir()
    # The same leaves but the last: whole in itself, and signed.
    TransparencyLog.create(folder, signer_of(filed.home), entries[:-1])
    assert "leaves were dropped" in filed.clerk.read("cut off").findings[0]
    other = encode(ChangeLeaf(filed.now_s, 3, "withdrawn", 0))
    filed.clerk._reader._checkpoint = filed.note
    append(filed, other, other)
    assert any("forked" in finding for finding in filed.clerk.read("written otherwise").findings)


def test_a_leaf_that_is_dated_ahead_of_the_run_or_a_checkpoint_of_another_key_is_found(tmp_path: Path) -> None:
    filed = filing(tmp_path, ORDERS)
    filed.run()
    append(filed, encode(ChangeLeaf(filed.now_s + 90_000, 3, "withdrawn", 0)))
    assert "dated in the future" in filed.clerk.read("dated ahead").findings[0]
    signer = signer_of(filed.home)
    empty = sign_checkpoint(Checkpoint(signer.key.name, 0, EMPTY_ROOT), signer)
    (filed.home.path / LOG_FOLDER / "checkpoint").write_text(empty, encoding="utf-8")
    assert not filed.clerk.read("empty").holds


def test_the_desk_reads_the_policy_that_the_scenario_states(tmp_path: Path) -> None:
    filed = filing(tmp_path, ORDERS)
    with Desk.at(filed.home.path, lambda: filed.now_s, bytes) as desk:
        assert set(desk.policy.jurisdictions) == {"PK", "XX"}
