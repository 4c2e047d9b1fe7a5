"""The service makes the records that the core asks for: beside commits, and through failures of the disk."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from relay import records
from relay.core.events import RowNumbers, Snapshot
from relay.held import NobodyThere, held_of
from relay.service import RelayService
from relay.store.protocol import StoreError
from tests.relay.core.test_belongings import ran, service_of
from tests.relay.world import Device, Pair, a_pair
from wire.commands import AskRecord, RecordPiece
from wire.errors import RefusalCode
from wire.held import Held


def asked(tmp_path: Path) -> tuple[Pair, RelayService]:
    """Bob has asked, and the service has not looked yet."""
    pair = a_pair()
    world = pair.world
    world.makes_records = False
    service = service_of(world, tmp_path)
    command = AskRecord(pair.bob.next_ref(), pair.bob.mailbox, bytes(32), 0)
    world.core.receive(pair.bob.tag, pair.bob.frame(command), world.now_ms)
    return pair, service


def heard(pair: Pair, device: Device) -> tuple[list[RecordPiece], list[int]]:
    pair.world.carry()
    pieces = [one for one in device.take(RecordPiece) if isinstance(one, RecordPiece)]
    return pieces, [one.code for one in device.refusals()]


def test_a_record_is_made_and_given(tmp_path: Path) -> None:
    pair, service = asked(tmp_path)

    async def served() -> None:
        await service.step()
        await service._records.settled()

    ran(served())
    (piece,), refused = heard(pair, pair.bob)
    assert not refused
    assert piece.piece == held_of(pair.world.store.load(), pair.bob.account).data[: len(piece.piece)]


def test_a_disk_that_cannot_be_read_is_told_as_a_refusal_for_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair, service = asked(tmp_path)

    def broken(_numbers: RowNumbers) -> Snapshot:
        raise StoreError("rows: disk I/O error")

    monkeypatch.setattr(service.store, "rows", broken)
    ran(service.step())
    assert heard(pair, pair.bob) == ([], [RefusalCode.STORAGE_FAILED])
    assert pair.world.core.take_record(pair.world.now_ms) is None


def test_a_record_that_cannot_be_made_is_told_as_a_refusal_for_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair, service = asked(tmp_path)

    def nobody(_snapshot: Snapshot, account: str) -> Held:
        raise NobodyThere(account)

    monkeypatch.setattr(records, "held_of", nobody)

    async def served() -> None:
        await service.step()
        await service._records.settled()

    ran(served())
    assert heard(pair, pair.bob) == ([], [RefusalCode.STORAGE_FAILED])


def test_commits_go_on_while_a_record_is_put_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pair, service = asked(tmp_path)
    world = pair.world

    async def served() -> None:
        loop = asyncio.get_running_loop()
        begun, may_end = asyncio.Event(), asyncio.Event()

        def slow(snapshot: Snapshot, account: str) -> Held:
            loop.call_soon_threadsafe(begun.set)
            asyncio.run_coroutine_threadsafe(may_end.wait(), loop).result(20)
            return held_of(snapshot, account)

        monkeypatch.setattr(records, "held_of", slow)
        await service.step()
        await begun.wait()
        submit = world.submit(pair.ana, pair.bob.account, world.mail(pair.bob))
        world.core.receive(pair.ana.tag, pair.ana.frame(submit), world.now_ms)
        await service.step()
        world.carry()
        assert world.check_receipts(submit, pair.ana.receipts())
        assert heard(pair, pair.bob) == ([], [])
        may_end.set()
        await service._records.settled()

    ran(served())
    assert len(heard(pair, pair.bob)[0]) == 1


def test_a_service_that_closes_leaves_no_record_under_way(tmp_path: Path) -> None:
    _, service = asked(tmp_path)

    async def served() -> None:
        await service.step()
        await service.close()

    ran(served())
    assert service._records._task is not None
    assert service._records._task.done()
