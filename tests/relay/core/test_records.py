"""A person's own record: whole, of one moment, of nobody else, and at no cost to others (protocol.md 6.3, 6.4)."""

from __future__ import annotations

from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest

from relay import holdings
from relay.core import CoreConfig, records
from relay.core.docket import Scope, ScopeKind
from relay.core.events import RecordRead
from relay.held import held_of
from relay.service import RelayService
from relay.store.sqlite import SqliteStore
from tests.relay.core.test_belongings import ran, service_of
from tests.relay.world import Device, Pair, World, a_pair
from wire.commands import AskRecord, PublishList, RecordPiece
from wire.errors import RefusalCode
from wire.held import read_held
from wire.limits import HELD_BYTES_MAX
from wire.link import FrameOpener, FrameSealer, accept_welcome, begin_hello

NEW = bytes(32)
PIECE = 300


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "HELD_PIECE_BYTES_MAX", PIECE)


def ask(device: Device, record: bytes = NEW, offset: int = 0, mailbox: bytes | None = None) -> AskRecord:
    return AskRecord(device.next_ref(), mailbox or device.mailbox, record, offset)


def pieces(device: Device) -> list[RecordPiece]:
    return [one for one in device.take(RecordPiece) if isinstance(one, RecordPiece)]


def piece(device: Device) -> RecordPiece:
    (one,) = pieces(device)
    return one


def refusal(device: Device) -> tuple[RefusalCode, str]:
    (one,) = device.refusals()
    return RefusalCode(one.code), one.field


def fetched(world: World, device: Device) -> bytes:
    """The whole record, as a device fetches it."""
    world.send(device, ask(device))
    return rest_of(world, device, piece(device))


def rest_of(world: World, device: Device, first: RecordPiece) -> bytes:
    assert first.offset == 0
    data = first.piece
    while len(data) < first.total:
        world.send(device, ask(device, first.record, len(data)))
        more = piece(device)
        assert (more.record, more.total, more.offset) == (first.record, first.total, len(data))
        data += more.piece
    assert sha256(data).digest() == first.record
    return data


def mail_to(pair: Pair, device: Device, count: int = 1) -> None:
    mails = [pair.world.mail(device) for _ in range(count)]
    pair.world.send(pair.ana, pair.world.submit(pair.ana, device.account, *mails))


def taken(world: World) -> RecordRead:
    read = world.core.take_record(world.now_ms)
    assert read is not None
    return read


def test_a_device_gets_what_is_held_about_its_account_in_pieces() -> None:
    pair = a_pair()
    mail_to(pair, pair.bob, 5)
    data = fetched(pair.world, pair.bob)
    assert len(data) > 3 * PIECE
    assert data == held_of(pair.world.store.load(), pair.bob.account).data
    assert read_held(data).account == pair.bob.account


def test_an_authority_and_the_person_get_the_same_bytes_at_the_same_moment(tmp_path: Path) -> None:
    world = World(store=SqliteStore(tmp_path / "store.sqlite", World().relay_id))
    pair = Pair(world, world.enrolled("ana"), world.enrolled("bob"))
    mail_to(pair, pair.bob, 3)
    pair.bob.inbox.clear()
    service = service_of(world, tmp_path)
    world.makes_records = False

    async def both() -> tuple[bytes, bytes]:
        ordered = await holdings.found(service, Scope(ScopeKind.ACCOUNT, pair.bob.account))
        first = await asked_of_service(service, world, pair.bob, ask(pair.bob))
        data = first.piece
        while len(data) < first.total:
            data += (await asked_of_service(service, world, pair.bob, ask(pair.bob, first.record, len(data)))).piece
        return ordered.held[0], data

    ordered, own = ran(both())
    assert own == ordered
    world.store.close()


async def asked_of_service(service: RelayService, world: World, device: Device, command: AskRecord) -> RecordPiece:
    world.core.receive(device.tag, device.frame(command), world.now_ms)
    while not (got := pieces(device)):
        await service.step()
        await service._records.settled()
        world.carry()
    return got[0]


def test_all_pieces_are_of_the_moment_of_the_first() -> None:
    pair = a_pair()
    mail_to(pair, pair.bob, 2)
    before = held_of(pair.world.store.load(), pair.bob.account).data
    pair.world.send(pair.bob, ask(pair.bob))
    first = piece(pair.bob)
    mail_to(pair, pair.bob, 2)
    assert rest_of(pair.world, pair.bob, first) == before
    assert held_of(pair.world.store.load(), pair.bob.account).data != before


def test_every_device_of_the_account_may_ask() -> None:
    pair = a_pair()
    world = pair.world
    phone = world.device("bob's phone", pair.bob.account)
    world.link(phone)
    world.send(phone, ask(phone))
    assert refusal(phone) == (RefusalCode.NOT_ENTITLED, "mailbox")
    listed = world.next_list(pair.bob.account, pair.bob, phone)
    world.send(pair.bob, PublishList(pair.bob.next_ref(), listed))
    assert fetched(world, phone) == held_of(world.store.load(), pair.bob.account).data
    world.send(pair.bob, PublishList(pair.bob.next_ref(), world.next_list(pair.bob.account, pair.bob)))
    world.send(phone, ask(phone))
    assert refusal(phone) == (RefusalCode.NOT_ENTITLED, "mailbox")


def test_attack_a_stranger_gets_nothing_of_anybody() -> None:
    pair = a_pair()
    world = pair.world
    for mailbox in (pair.bob.mailbox, b"nobody's mailbox"):
        world.send(pair.ana, ask(pair.ana, mailbox=mailbox))
        assert refusal(pair.ana) == (RefusalCode.NOT_ENTITLED, "mailbox")
    stranger = world.device("eve")
    world.link(stranger)
    for mailbox in (stranger.mailbox, pair.bob.mailbox):
        world.send(stranger, ask(stranger, mailbox=mailbox))
        assert refusal(stranger) == (RefusalCode.NOT_ENTITLED, "mailbox")
    assert not pieces(stranger) + pieces(pair.ana)


def shared(pair: Pair) -> Device:
    """Ana's link, which speaks for Bob too."""
    ana, bob, world = pair.ana, pair.bob, pair.world
    hello = begin_hello(world.relay_id, ana.rng.randbytes)
    world.core.receive(ana.tag, hello.packet, world.now_ms)
    ((_tag, welcome),) = world.core.take_packets()
    keys, _chain, prove = accept_welcome(hello, world.relay_key.public, welcome, [ana.key, bob.key])
    ana.keys, ana.sealer, ana.opener = keys, FrameSealer(keys.link_id, keys.up_key), FrameOpener(keys.down_key)
    world.core.receive(ana.tag, prove, world.now_ms)
    world.run()
    ana.inbox.clear()
    return ana


def test_attack_a_device_that_shares_a_link_gets_its_own_record_under_the_others_hash() -> None:
    pair = a_pair()
    link = shared(pair)
    world = pair.world
    world.send(link, ask(link, mailbox=pair.bob.mailbox))
    bobs = piece(link)
    world.send(link, ask(link, bobs.record, PIECE, mailbox=pair.ana.mailbox))
    assert refusal(link) == (RefusalCode.LINK_QUOTA, "records")
    world.after(world.config.records_idle_ms)
    world.send(link, ask(link, bobs.record, PIECE, mailbox=pair.ana.mailbox))
    anas = piece(link)
    assert anas.offset == 0
    assert anas.record != bobs.record
    whole = held_of(world.store.load(), pair.ana.account).data
    assert anas.piece == whole[:PIECE]


def test_one_record_of_a_link_at_a_time_and_the_next_follows_when_it_is_whole() -> None:
    pair = a_pair()
    link, world = shared(pair), pair.world
    world.send(link, ask(link, mailbox=pair.bob.mailbox))
    first = piece(link)
    world.send(link, ask(link))
    assert refusal(link) == (RefusalCode.LINK_QUOTA, "records")
    data = first.piece
    while len(data) < first.total:
        world.send(link, ask(link, first.record, len(data), mailbox=pair.bob.mailbox))
        data += piece(link).piece
    assert fetched(world, link) == held_of(world.store.load(), pair.ana.account).data


def test_an_account_gets_a_new_record_only_so_often() -> None:
    pair = a_pair()
    world, bob = pair.world, pair.bob
    fetched(world, bob)
    world.send(bob, ask(bob))
    (refused,) = bob.refusals()
    assert (refused.code, refused.field) == (RefusalCode.LINK_QUOTA, "records")
    assert refused.retry_after_ms == world.config.records_every_ms
    assert not RefusalCode(refused.code).definite
    world.link(bob)
    world.send(bob, ask(bob))
    assert refusal(bob)[0] == RefusalCode.LINK_QUOTA, "a new link is no way round it"
    world.after(world.config.records_every_ms)
    mail_to(pair, bob)
    assert fetched(world, bob) == held_of(world.store.load(), bob.account).data


def test_a_clock_that_goes_back_locks_nobody_out() -> None:
    pair = a_pair()
    fetched(pair.world, pair.bob)
    pair.world.now_ms -= 3_600_000
    assert fetched(pair.world, pair.bob)


def test_a_repeated_question_gets_the_same_record_and_makes_none() -> None:
    pair = a_pair()
    world, bob = pair.world, pair.bob
    command = ask(bob)
    world.makes_records = False
    world.send(bob, command)
    world.send(bob, command)
    assert not pieces(bob) + bob.refusals()
    read = taken(world)
    world.send(bob, command)
    world.core.record_made(read, world.record_of(read), world.now_ms)
    world.run()
    first = piece(bob)
    mail_to(pair, bob)
    world.send(bob, command)
    assert piece(bob) == first
    assert world.core.take_record(world.now_ms) is None


def test_nobody_waits_while_a_record_is_made() -> None:
    pair = a_pair()
    world = pair.world
    world.makes_records = False
    world.send(pair.bob, ask(pair.bob))
    read = taken(world)
    data = world.record_of(read)
    mail = world.mail(pair.bob)
    submit = world.submit(pair.ana, pair.bob.account, mail)
    world.send(pair.ana, submit)
    assert world.check_receipts(submit, pair.ana.receipts())
    assert pair.bob.delivered()
    world.send(pair.bob, world.ack(pair.bob, mail))
    assert pair.bob.done()
    assert world.core.take_record(world.now_ms) is None, "one at a time"
    world.core.record_made(read, data, world.now_ms)
    world.run()
    assert rest_of(world, pair.bob, piece(pair.bob)) == data


def test_the_next_record_waits_as_many_times_as_long_as_one_took() -> None:
    pair = a_pair()
    world = pair.world
    world.makes_records = False
    for device in (pair.ana, pair.bob):
        world.send(device, ask(device))
    read = taken(world)
    world.now_ms += 100
    world.core.record_made(read, world.record_of(read), world.now_ms)
    assert world.core.take_record(world.now_ms) is None
    deadline_ms = world.core.next_deadline()
    assert deadline_ms == world.now_ms + 100 * world.config.records_rest
    world.now_ms = deadline_ms
    assert taken(world).account == pair.bob.account


def test_what_cannot_be_read_is_refused_for_now_and_comes_when_asked_again() -> None:
    pair = a_pair()
    world, bob = pair.world, pair.bob
    world.makes_records = False
    command = ask(bob)
    world.send(bob, command)
    world.core.record_made(taken(world), None, world.now_ms)
    world.run()
    assert refusal(bob) == (RefusalCode.STORAGE_FAILED, "record")
    world.makes_records = True
    world.send(bob, command)
    assert rest_of(world, bob, piece(bob)) == held_of(world.store.load(), bob.account).data


def test_a_record_that_is_too_large_is_refused_for_good() -> None:
    pair = a_pair()
    world, bob = pair.world, pair.bob
    world.makes_records = False
    world.send(bob, ask(bob))
    world.core.record_made(taken(world), bytes(HELD_BYTES_MAX + 1), world.now_ms)
    world.run()
    (refused,) = bob.refusals()
    assert (refused.code, refused.limit) == (RefusalCode.NOT_ENTITLED, HELD_BYTES_MAX)
    assert world.core._commands.records.bytes_held == 0


def test_records_that_are_kept_have_a_bound_together() -> None:
    pair = a_pair(replace(CoreConfig(), records_bytes_max=24_000))
    world = pair.world
    mail_to(pair, pair.bob, 64)
    world.send(pair.bob, ask(pair.bob))
    assert piece(pair.bob).piece
    mail_to(pair, pair.ana, 64)
    world.send(pair.ana, ask(pair.ana))
    assert refusal(pair.ana) == (RefusalCode.OVERLOADED, "records")
    world.after(world.config.records_idle_ms)
    world.send(pair.ana, ask(pair.ana))
    assert piece(pair.ana).piece


def test_no_record_is_larger_than_was_kept_free_for_it() -> None:
    pair = a_pair()
    world = pair.world
    phone = world.device("bob's phone", pair.bob.account)
    for devices in ((pair.bob, phone), (pair.bob,)):
        listed = world.next_list(pair.bob.account, *devices)
        world.send(pair.bob, PublishList(pair.bob.next_ref(), listed))
    mail_to(pair, pair.bob, 20)
    for account in (pair.ana.account, pair.bob.account):
        most = world.core.belongings.record_bytes_most(account)
        assert len(held_of(world.store.load(), account).data) <= most


def test_a_record_that_nobody_fetches_is_forgotten() -> None:
    pair = a_pair()
    world, bob = pair.world, pair.bob
    world.send(bob, ask(bob))
    first = piece(bob)
    kept = world.core._commands.records
    assert kept.bytes_held == first.total
    assert kept.next_deadline() == world.now_ms + world.config.records_idle_ms
    world.after(world.config.records_idle_ms)
    assert kept.bytes_held == 0
    assert kept.next_deadline() is None
    world.send(bob, ask(bob, first.record, PIECE))
    assert piece(bob).offset == PIECE, "one that has the same bytes goes on"
    world.after(world.config.records_idle_ms)
    mail_to(pair, bob)
    world.send(bob, ask(bob, first.record, PIECE))
    assert piece(bob).offset == 0, "any other begins anew"


def test_a_record_that_is_fetched_too_slowly_is_forgotten() -> None:
    pair = a_pair(replace(CoreConfig(), records_whole_ms=50_000))
    world, bob = pair.world, pair.bob
    mail_to(pair, bob, 5)
    world.send(bob, ask(bob))
    first = piece(bob)
    mail_to(pair, bob)
    for offset in (PIECE, 2 * PIECE):
        world.after(20_000)
        world.send(bob, ask(bob, first.record, offset))
        assert piece(bob).record == first.record
    world.after(20_000)
    world.send(bob, ask(bob, first.record, 3 * PIECE))
    other = piece(bob)
    assert other.offset == 0
    assert other.record != first.record


def test_an_offset_beyond_the_end_is_refused() -> None:
    pair = a_pair()
    pair.world.send(pair.bob, ask(pair.bob))
    first = piece(pair.bob)
    pair.world.send(pair.bob, ask(pair.bob, first.record, first.total))
    (refused,) = pair.bob.refusals()
    assert (refused.code, refused.field, refused.limit) == (RefusalCode.MALFORMED, "offset", first.total)


@pytest.mark.parametrize("when", ["wanted", "being made", "kept"])
def test_a_record_goes_with_its_link(when: str) -> None:
    pair = a_pair()
    world, bob = pair.world, pair.bob
    world.makes_records = when == "kept"
    world.send(bob, ask(bob))
    read = taken(world) if when == "being made" else None
    world.link(bob)
    assert world.core._commands.records.bytes_held == 0
    if read is not None:
        world.core.record_made(read, world.record_of(read), world.now_ms)
    assert world.core.take_record(world.now_ms) is None
    world.run()
    bob.inbox = [one for one in bob.inbox if not isinstance(one, RecordPiece)] if when == "kept" else bob.inbox
    assert not pieces(bob)


@pytest.mark.parametrize("when", ["wanted", "being made"])
def test_attack_a_device_that_was_removed_meanwhile_gets_nothing(when: str) -> None:
    pair = a_pair()
    world = pair.world
    phone = world.device("bob's phone", pair.bob.account)
    listed = world.next_list(pair.bob.account, pair.bob, phone)
    world.send(pair.bob, PublishList(pair.bob.next_ref(), listed))
    world.link(phone)
    world.makes_records = False
    world.send(phone, ask(phone))
    read = taken(world) if when == "being made" else None
    world.send(pair.bob, PublishList(pair.bob.next_ref(), world.next_list(pair.bob.account, pair.bob)))
    if read is None:
        assert world.core.take_record(world.now_ms) is None
    else:
        world.core.record_made(read, world.record_of(read), world.now_ms)
    world.run()
    assert not pieces(phone)
    assert refusal(phone) == (RefusalCode.NOT_ENTITLED, "mailbox")


def test_a_relay_that_stops_says_so_to_who_waits_for_a_record() -> None:
    pair = a_pair()
    world, bob = pair.world, pair.bob
    world.makes_records = False
    world.send(bob, ask(bob))
    world.core.stop()
    world.run()
    assert refusal(bob) == (RefusalCode.STOPPING, "relay")
    assert world.core.take_record(world.now_ms) is None


def test_no_record_is_taken_while_a_batch_is_under_way() -> None:
    pair = a_pair()
    world = pair.world
    command = world.submit(pair.ana, pair.bob.account, world.mail(pair.bob))
    world.core.receive(pair.ana.tag, pair.ana.frame(command), world.now_ms)
    batch = world.core.take_batch(world.now_ms)
    assert batch is not None
    with pytest.raises(AssertionError, match="no record while a batch"):
        world.core.take_record(world.now_ms)
    world.end(batch)
