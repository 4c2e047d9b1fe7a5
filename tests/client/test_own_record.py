"""What a device is told that the relay holds about its account: all of it, and only if it is to be believed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest
from msgspec.structs import replace as changed

from client import own_record
from client.errors import NotEnrolled, RecordFalse, Refused, Unknown
from client.state import Settings
from relay.held import held_of
from tests.client.gateway_world import a_gateway, behind
from tests.client.test_attacks import cheat, leave, pair
from tests.client.test_device import say, two_devices
from tests.client.world import Faults, World, run
from wire.codec import encode
from wire.commands import Directory, Done, RecordPiece, RelayCommand
from wire.errors import RefusalCode
from wire.held import Held, TableRows
from wire.limits import HELD_PIECE_BYTES_MAX

ANA, BO = "ana@acme.example", "bo@globex.example"
Forge = Callable[[Held, Held], bytes]


def held(world: World, account: str) -> Held:
    return held_of(world.store.load(), account)


def test_a_person_sees_what_is_held_about_them(tmp_path: Path) -> None:
    async def scenario() -> None:
        world = World(tmp_path)
        ana, bo = await pair(world)
        await say(ana, "waits", BO)
        expected = held(world, BO)
        assert len(expected.data) > HELD_PIECE_BYTES_MAX, "it comes in pieces"
        assert (await bo.held_record(60)).data == expected.data
        await leave(ana, bo)

    run(scenario)


def test_with_credit_0_looking_changes_nothing(tmp_path: Path) -> None:
    async def scenario() -> None:
        world = World(tmp_path)
        ana, bo = await pair(world)
        await leave(bo)
        await say(ana, "waits", BO)
        before = held(world, BO)
        async with world.open(BO, Settings(credit=0)) as looking:
            assert (await looking.held_record(60)).data == before.data
            await asyncio.sleep(60)
        assert held(world, BO).data == before.data
        assert world.held() == 1
        await leave(ana)

    run(scenario)


def test_a_record_comes_over_a_network_that_loses_and_doubles(tmp_path: Path) -> None:
    async def scenario() -> None:
        world = World(tmp_path, seed=3)
        ana, bo = await pair(world)
        world.faults = Faults(drop=0.3, duplicate=0.3, delay=0.3)
        assert (await bo.held_record(600)).account == BO
        world.cut(bo)
        world.faults = Faults()
        assert (await bo.held_record(600)).data == held(world, BO).data
        await leave(ana, bo)

    run(scenario)


def test_every_device_may_ask_and_gets_the_same(tmp_path: Path) -> None:
    async def scenario() -> None:
        world = World(tmp_path)
        bo, phone = await two_devices(world, BO, "phone")
        first = await bo.held_record(60)
        second = await phone.held_record(60)
        assert first.data == second.data == held(world, BO).data
        assert len(first.tables[0].rows) == 2
        await bo.remove_device(phone.device_key, wait_s=60)
        with pytest.raises((Refused, Unknown)):
            await phone.held_record(60)
        await leave(bo, phone)

    run(scenario)


def test_devices_behind_a_gateway_get_their_own(tmp_path: Path) -> None:
    async def scenario() -> None:
        world = World(tmp_path)
        async with a_gateway(world) as gateway:
            ana, bo = behind(world, gateway, ANA), behind(world, gateway, BO)
            async with ana, bo:
                await ana.enrolled(60)
                await bo.enrolled(60)
                for device in (ana, bo):
                    assert (await device.held_record(60)).data == held(world, device.account).data

    run(scenario)


def test_attack_a_device_behind_a_gateway_cannot_ask_in_anothers_name(tmp_path: Path) -> None:
    async def scenario() -> None:
        world = World(tmp_path)
        async with a_gateway(world) as gateway:
            ana, bo = behind(world, gateway, ANA), behind(world, gateway, BO)
            async with ana, bo:
                await ana.enrolled(60)
                await bo.enrolled(60)
                ana.state.keys.mailbox, own = bo.state.keys.mailbox, ana.state.keys.mailbox
                with pytest.raises(Refused) as refused:
                    await ana.held_record(60)
                assert (refused.value.code, refused.value.field) == (RefusalCode.NOT_ENTITLED, "mailbox")
                ana.state.keys.mailbox = own

    run(scenario)


def test_a_device_without_an_account_cannot_ask(tmp_path: Path) -> None:
    async def scenario() -> None:
        world = World(tmp_path)
        async with world.request("phone") as phone:
            with pytest.raises(NotEnrolled):
                await phone.held_record(5)

    run(scenario)


def test_a_relay_that_forgets_in_the_middle_begins_anew(tmp_path: Path) -> None:
    async def scenario() -> None:
        world = World(tmp_path, records_idle_ms=1_000)
        ana, bo = await pair(world)
        lost = 1

        def slow(_tag: bytes, packet: bytes) -> bytes | None:
            nonlocal lost
            if len(packet) > HELD_PIECE_BYTES_MAX and lost:
                lost -= 1
                return packet
            if len(packet) > 10_000 and lost == 0:
                lost = -1
                return None
            return packet

        world.down_taps.append(slow)
        assert (await bo.held_record(120)).data == held(world, BO).data
        assert lost == -1
        await leave(ana, bo)

    run(scenario)


def table_without(record: Held, place: int, column: str) -> Held:
    table = record.tables[place]
    at = table.columns.index(column)
    rows = tuple((*row[:at], *row[at + 1 :]) for row in table.rows)
    columns = (*table.columns[:at], *table.columns[at + 1 :])
    tables = list(record.tables)
    tables[place] = TableRows(table.table, columns, rows)
    return Held(record.account, tuple(tables))


def with_rows_of(record: Held, other: Held, place: int) -> Held:
    tables = list(record.tables)
    tables[place] = replaced_rows(tables[place], (*tables[place].rows, *other.tables[place].rows))
    return Held(record.account, tuple(tables))


def replaced_rows(table: TableRows, rows: tuple[tuple[object, ...], ...]) -> TableRows:
    return TableRows(table.table, table.columns, rows)


def without_own_device(record: Held, _other: Held) -> bytes:
    return Held(record.account, (replaced_rows(record.tables[0], ()), *record.tables[1:])).data


FORGERIES: dict[str, tuple[Forge, str]] = {
    "a column is left out": (lambda own, other: table_without(own, 0, "enrolled_day").data, "other columns"),
    "a table is left out": (lambda own, other: Held(own.account, own.tables[:-1]).data, "other tables"),
    "another account's": (lambda own, other: other.data, "another account's"),
    "another account's under this name": (lambda own, other: Held(own.account, other.tables).data, "not in it"),
    "this device is not in it": (without_own_device, "this device is not in it"),
    "mailboxes of another": (lambda own, other: with_rows_of(own, other, 0).data, "mailboxes: a row"),
    "lists of another": (lambda own, other: with_rows_of(own, other, 1).data, "lists: a row"),
    "envelopes of another": (lambda own, other: with_rows_of(own, other, 3).data, "envelopes: a row"),
    "not a record": (lambda own, other: encode(["no", "record"]), "record"),
    "a byte more": (lambda own, other: own.data + b"\0", "record"),
}


@pytest.mark.parametrize("name", FORGERIES)
def test_attack_a_relay_that_gives_something_else_is_found_out(tmp_path: Path, name: str) -> None:
    forge, words = FORGERIES[name]

    async def scenario() -> None:
        world = World(tmp_path)
        ana, bo = await pair(world)
        await say(bo, "waits", ANA)
        prekeys = 2

        def short(account: str) -> Held:
            # Prekeys are most of it; without them a record is one piece.
            record = held(world, account)
            return Held(
                account,
                tuple(replaced_rows(one, ()) if at == prekeys else one for at, one in enumerate(record.tables)),
            )

        data = forge(short(BO), short(ANA))

        def forged(command: RelayCommand) -> RelayCommand:
            if not isinstance(command, RecordPiece):
                return command
            return RecordPiece(command.ref, sha256(data).digest(), len(data), 0, data)

        cheat(bo, forged)
        with pytest.raises(RecordFalse, match=words):
            await bo.held_record(60)
        await leave(ana, bo)

    run(scenario)


def test_the_same_relay_is_believed_when_it_forges_nothing(tmp_path: Path) -> None:
    async def scenario() -> None:
        world = World(tmp_path)
        ana, bo = await pair(world)
        cheat(bo, lambda command: command)
        assert (await bo.held_record(60)).account == BO
        await leave(ana, bo)

    run(scenario)


def piece_of(change: Callable[[RecordPiece], RelayCommand]) -> Callable[[RelayCommand], RelayCommand]:
    return lambda command: change(command) if isinstance(command, RecordPiece) else command


PIECES: dict[str, Callable[[RecordPiece], RelayCommand]] = {
    "other bytes": lambda one: changed(one, piece=one.piece[:-1] + bytes((one.piece[-1] ^ 1,))),
    "another place": lambda one: changed(one, offset=one.offset + 1),
    "another size": lambda one: changed(one, total=one.total - one.offset // 2) if one.offset else one,
    "crumbs": lambda one: changed(one, piece=one.piece[:1]),
    "more than there is": lambda one: changed(one, total=one.offset + 10),
    "done": lambda one: Done((one.ref,)),
}


@pytest.mark.parametrize("name", PIECES)
def test_attack_pieces_that_do_not_fit_are_refused(tmp_path: Path, name: str) -> None:
    async def scenario() -> None:
        world = World(tmp_path)
        ana, bo = await pair(world)
        cheat(bo, piece_of(PIECES[name]))
        with pytest.raises(RecordFalse):
            await bo.held_record(60)
        await leave(ana, bo)

    run(scenario)


def test_attack_a_relay_that_begins_anew_for_ever_is_given_up(tmp_path: Path) -> None:
    async def scenario() -> None:
        world = World(tmp_path)
        ana, bo = await pair(world)
        count = 0

        def another(one: RecordPiece) -> RelayCommand:
            nonlocal count
            count += 1
            piece = bytes(HELD_PIECE_BYTES_MAX)
            return RecordPiece(one.ref, bytes((count,)) * 32, 2 * HELD_PIECE_BYTES_MAX, 0, piece)

        cheat(bo, piece_of(another))
        with pytest.raises(Unknown, match="forgets the record"):
            await bo.held_record(300)
        assert count == own_record._BEGINNINGS_MAX + 1
        await leave(ana, bo)

    run(scenario)


def test_a_directory_is_no_answer_to_it(tmp_path: Path) -> None:
    async def scenario() -> None:
        world = World(tmp_path)
        ana, bo = await pair(world)
        signed = bo.state.own_list
        cheat(bo, piece_of(lambda one: Directory(one.ref, signed, ())))
        with pytest.raises(RecordFalse, match="something else"):
            await bo.held_record(60)
        await leave(ana, bo)

    run(scenario)


def test_no_answer_in_time_is_unknown(tmp_path: Path) -> None:
    async def scenario() -> None:
        world = World(tmp_path)
        ana, bo = await pair(world)
        world.kill()
        with pytest.raises(Unknown):
            await bo.held_record(30)
        await leave(ana, bo)

    run(scenario)
