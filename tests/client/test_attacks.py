"""A relay, or a broker, that cheats: each attack is refused by the check meant for it, and nothing of it is kept."""

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from client.content import Kind, wrap_own_copy
from client.device import Device
from client.errors import AccountKeyChanged, Alarm, ListForked, ListRolledBack, Refused, Unknown
from client.store import Kind as RowKind
from keys.identity import AccountKey, DeviceKeys
from keys.prekeys import PrekeyRing
from tests.client.test_device import ANA, BO, heard, say
from tests.client.world import World, run
from wire.codec import decode, encode
from wire.commands import Delivery, Directory, Receipts, Refusal, RelayCommand
from wire.errors import RefusalCode, SignatureError
from wire.identity import SignedList, device_tag, list_hash, sign_list, verify_signed_list
from wire.receipt import CommitHeader
from wire.signing import SigningKey

Tamper = Callable[[RelayCommand], RelayCommand | None]


def cheat(device: Device, tamper: Tamper) -> None:
    """The relay itself says something else: its commands are changed after the link has opened the frame."""
    link = device.engine.link
    events = link._events

    def tampered(commands: Sequence[RelayCommand], now_s: float) -> Any:
        changed = [tamper(command) for command in commands]
        return events([command for command in changed if command is not None], now_s)

    link._events = tampered  # type: ignore[method-assign]


def kinds(device: Device) -> set[str]:
    return {notice.kind for notice in device.notices()}


async def pair(world: World) -> tuple[Device, Device]:
    ana, bo = await world.new(ANA).__aenter__(), await world.new(BO).__aenter__()
    await ana.enrolled(60)
    await bo.enrolled(60)
    return ana, bo


async def leave(*devices: Device) -> None:
    for device in devices:
        await device.__aexit__(None, None, None)


def test_a_body_under_another_envelope_id_is_not_shown_nor_acknowledged(tmp_path: Path) -> None:
    async def scenario() -> None:
        world = World(tmp_path)
        ana, bo = await pair(world)
        bodies: list[bytes] = []

        def swap(command: RelayCommand) -> RelayCommand:
            if not isinstance(command, Delivery):
                return command
            bodies.extend(envelope.body for envelope in command.envelopes)
            changed = tuple(replace(envelope, body=bodies[0]) for envelope in command.envelopes)
            return replace(command, envelopes=changed)

        await say(ana, "before", BO)
        assert await heard(bo, 1) == ["before"]
        cheat(bo, swap)
        await say(ana, "first", BO)
        await say(ana, "second", BO)
        assert await heard(bo, 1) == ["first"]
        assert await bo.receive(60) == []
        await ana.idle(60)
        assert world.held() == 1
        await leave(ana, bo)

    run(scenario)


def test_a_replayed_envelope_is_shown_once(tmp_path: Path) -> None:
    async def scenario() -> None:
        world = World(tmp_path)
        ana, bo = await pair(world)
        replays: list[Delivery] = []

        def replay(command: RelayCommand) -> RelayCommand:
            if isinstance(command, Delivery):
                replays.append(command)
            return command

        cheat(bo, replay)
        await say(ana, "once", BO)
        assert await heard(bo, 1) == ["once"]
        for number in (1, 500):
            again = tuple(replace(envelope, number=number) for envelope in replays[0].envelopes)
            bo.engine._handle(bo.engine.link._events([replace(replays[0], envelopes=again)], 0.0)[0], 0.0)
        # The very body under an id that was never seen: its key is used and gone.
        other = tuple(replace(envelope, envelope_id=b"n" * 16) for envelope in replays[0].envelopes)
        bo.engine._handle(bo.engine.link._events([replace(replays[0], envelopes=other)], 0.0)[0], 0.0)
        assert await bo.receive(30) == []
        await leave(ana, bo)

    run(scenario)


def ghost_of(signed: SignedList) -> tuple[SignedList, DeviceKeys]:
    """The next list with one more device, signed by whoever has no account key."""
    devices, ghost = verify_signed_list(signed), DeviceKeys.generate()
    newer = (*devices.devices, ghost.entry)
    listed = replace(devices, version=devices.version + 1, previous=list_hash(signed), devices=newer)
    return SignedList(encode(listed), SigningKey(b"g" * 32).sign("device-list", encode(listed))), ghost


def test_a_ghost_device_that_the_account_key_did_not_sign_gets_nothing(tmp_path: Path) -> None:
    async def scenario() -> None:
        world = World(tmp_path)
        ana, bo = await pair(world)
        ghosts: list[DeviceKeys] = []

        def add_ghost(command: RelayCommand) -> RelayCommand:
            if isinstance(command, Directory):
                signed, ghost = ghost_of(command.signed_list)
                ghosts.append(ghost)
                return replace(command, signed_list=signed)
            return command

        cheat(ana, add_ghost)
        with pytest.raises(SignatureError):
            await say(ana, "not for ghosts", BO)
        assert ana.state.pins.get(BO) is None
        assert world.held() == 0
        await leave(ana, bo)

    run(scenario)


def test_a_bundle_of_a_device_that_is_on_no_list_is_passed_over(tmp_path: Path) -> None:
    async def scenario() -> None:
        world = World(tmp_path)
        ana, bo = await pair(world)
        ghost = DeviceKeys.generate()
        _ring, prekeys = PrekeyRing.generate(ghost, 0, 1)

        def add_bundle(command: RelayCommand) -> RelayCommand:
            if not isinstance(command, Directory) or not command.bundles:
                return command
            of_ghost = replace(
                command.bundles[0],
                device_key=ghost.public,
                signed_prekey=prekeys.signed_prekey,
                kem_prekey=prekeys.kem_prekey,
                one_time=prekeys.one_time[:1],
            )
            return replace(command, bundles=(*command.bundles, of_ghost))

        cheat(ana, add_bundle)
        await say(ana, "hello", BO)
        assert await heard(bo, 1) == ["hello"]
        assert not ana.state.sessions.can_send(BO, ghost.public)
        assert ana.notices() == []
        await leave(ana, bo)

    run(scenario)


def test_prekeys_that_the_device_did_not_sign_start_no_session(tmp_path: Path) -> None:
    async def scenario() -> None:
        world = World(tmp_path)
        ana, bo = await pair(world)
        _ring, prekeys = PrekeyRing.generate(DeviceKeys.generate(), 0, 1)

        def swap_keys(command: RelayCommand) -> RelayCommand:
            if not isinstance(command, Directory):
                return command
            swapped = [
                replace(bundle, signed_prekey=prekeys.signed_prekey, kem_prekey=prekeys.kem_prekey)
                for bundle in command.bundles
            ]
            return replace(command, bundles=tuple(swapped))

        cheat(ana, swap_keys)
        with pytest.raises(Unknown):
            await say(ana, "hello", BO, wait_s=120)
        assert "SignatureError" in kinds(ana)
        assert world.held() == 0
        await leave(ana, bo)

    run(scenario)


async def with_other_list(world: World, make: Callable[[Device, Device], SignedList]) -> tuple[Alarm, Device, Device]:
    """After a first exchange the relay shows ana another list of bo; the alarm that ana's look-up raises."""
    ana, bo = await pair(world)
    await say(ana, "before", BO)
    assert await heard(bo, 1) == ["before"]
    other = make(ana, bo)
    cheat(
        ana,
        lambda command: replace(command, signed_list=other) if isinstance(command, Directory) else command,
    )
    before = ana.state.pins.get(BO)
    with pytest.raises(Alarm) as raised:
        await ana.look_up(BO, wait_s=60)
    assert ana.state.pins.get(BO) is before
    with pytest.raises(type(raised.value)):
        await say(ana, "after", BO)
    assert type(raised.value).__name__ in kinds(ana)
    return raised.value, ana, bo


def test_a_changed_account_key_is_an_alarm_and_nothing_is_sent_until_the_person_trusts_it(tmp_path: Path) -> None:
    async def scenario() -> None:
        world = World(tmp_path)
        mallory = AccountKey.generate()
        alarm, ana, bo = await with_other_list(
            world, lambda _ana, bo: mallory.first_list(BO, [DeviceKeys.generate().entry])
        )
        assert isinstance(alarm, AccountKeyChanged)
        assert alarm.offered == mallory.public
        assert await bo.receive(60) == []
        ana.trust_new_key(BO)
        known = await ana.look_up(BO, wait_s=60)
        assert known.pin.account_key == mallory.public
        await leave(ana, bo)

    run(scenario)


def test_a_lower_list_version_is_refused(tmp_path: Path) -> None:
    async def scenario() -> None:
        world = World(tmp_path)
        ana, bo = await pair(world)
        first = bo.state.own_list
        async with world.request("phone") as phone:
            phone.accept(await bo.approve(phone.request_text(), wait_s=60))
            await phone.enrolled(60)
            await ana.look_up(BO, wait_s=60)
            cheat(
                ana, lambda command: replace(command, signed_list=first) if isinstance(command, Directory) else command
            )
            with pytest.raises(ListRolledBack, match="version 1 was offered, version 2 was seen"):
                await ana.look_up(BO, wait_s=60)
        await leave(ana, bo)

    run(scenario)


@pytest.mark.parametrize("versions_ahead", [0, 1])
def test_a_list_that_does_not_continue_the_one_seen_is_a_fork(tmp_path: Path, versions_ahead: int) -> None:
    async def scenario() -> None:
        world = World(tmp_path)

        def fork(_ana: Device, bo: Device) -> SignedList:
            key = bo.state.account_key
            assert key is not None
            devices = verify_signed_list(bo.state.own_list)
            entries = (*devices.devices, DeviceKeys.generate().entry)
            previous = b"x" * 32 if versions_ahead else devices.previous
            version = devices.version + versions_ahead
            return sign_list(key.signing, replace(devices, version=version, previous=previous, devices=entries))

        alarm, ana, bo = await with_other_list(world, fork)
        assert isinstance(alarm, ListForked)
        await leave(ana, bo)

    run(scenario)


def resigned(command: Receipts, key: SigningKey, **changes: Any) -> Receipts:
    header = encode(replace(decode(CommitHeader, command.header, "header"), **changes))
    return replace(command, header=header, signature=key.sign("commit", header))


FORGERIES: dict[str, Callable[[World, Receipts], Receipts]] = {
    "another key": lambda _world, command: resigned(command, SigningKey(b"f" * 32)),
    "no signature": lambda _world, command: replace(command, signature=bytes(64)),
    "another root": lambda world, command: resigned(command, world.key, root=b"r" * 32),
    "another relay": lambda world, command: resigned(command, world.key, relay_id=b"r" * 16),
    "another partition": lambda world, command: resigned(command, world.key, partition=7),
    "another number": lambda _world, command: replace(
        command, entries=tuple(replace(entry, number=entry.number + 1) for entry in command.entries)
    ),
    "another leaf": lambda _world, command: replace(
        command, entries=tuple(replace(entry, leaf=entry.leaf + 1) for entry in command.entries)
    ),
    "not a header": lambda _world, command: replace(command, header=b"\xc0"),
}


@pytest.mark.parametrize("forgery", FORGERIES)
def test_a_forged_receipt_does_not_count_and_is_an_alarm(tmp_path: Path, forgery: str) -> None:
    async def scenario() -> None:
        world = World(tmp_path)
        ana, bo = await pair(world)
        cheating = True

        def forge(command: RelayCommand) -> RelayCommand:
            if isinstance(command, Receipts) and cheating:
                return FORGERIES[forgery](world, command)
            return command

        cheat(ana, forge)
        with pytest.raises(Unknown):
            await say(ana, "receipted?", BO, wait_s=60)
        assert kinds(ana) == {"ReceiptForged"}
        assert ana.state.evidence.held() == []
        cheating = False
        await ana.idle(120)
        assert len(ana.state.evidence.held()) == 1
        await leave(ana, bo)

    run(scenario)


def test_two_histories_signed_by_the_relay_convict_it(tmp_path: Path) -> None:
    async def scenario() -> None:
        world = World(tmp_path)
        ana, bo = await pair(world)
        await say(ana, "first", BO)

        def fork(command: RelayCommand) -> RelayCommand:
            if not isinstance(command, Receipts):
                return command
            # One leaf a commit here: any root of one leaf verifies, under a history in which the first never was.
            return resigned(command, world.key, previous=b"p" * 32)

        cheat(ana, fork)
        with pytest.raises(Unknown):
            await say(ana, "second", BO, wait_s=60)
        assert kinds(ana) == {"Forked"}
        await leave(ana, bo)

    run(scenario)


def test_a_relay_with_another_key_gets_no_link(tmp_path: Path) -> None:
    async def scenario() -> None:
        world = World(tmp_path)
        world.seed = b"w" * 32
        world.core._signing_key = SigningKey(world.seed)
        world.core._links._signing_key = SigningKey(world.seed)
        async with world.new(ANA) as ana:
            with pytest.raises(Unknown, match="welcome"):
                await ana.linked(60)
            assert not ana.engine.link.up

    run(scenario)


def test_after_a_rotation_the_old_key_opens_no_link(tmp_path: Path) -> None:
    async def scenario() -> None:
        world = World(tmp_path)
        ana, bo = await pair(world)
        await say(ana, "before", BO)
        old_seed, new_seed = world.seed, b"n" * 32
        world.core.rotate(new_seed, world.now_ms())
        world.seed = new_seed
        world.work_soon()
        await say(ana, "after", BO)
        assert await heard(bo, 2) == ["before", "after"]
        assert [record.new_key for record in ana.state.rotations] == [SigningKey(new_seed).public]
        await leave(ana, bo)
        # Whoever took the old key from the memory image answers now, and knows of no rotation.
        world.kill()
        world.seed = old_seed
        world.store.rotations.clear()
        world.start()
        async with world.open(ANA) as ana:
            with pytest.raises(Unknown, match="do not go on from those seen before"):
                await ana.linked(60)

    run(scenario)


def test_junk_from_the_broker_changes_nothing(tmp_path: Path) -> None:
    async def scenario() -> None:
        world = World(tmp_path)
        ana, bo = await pair(world)
        port = next(iter(world.ports.values()))
        link_id = ana.engine.link._standing.keys.link_id  # type: ignore[union-attr]
        for junk in (
            b"",
            b"\0",
            b"\1",
            b"\2",
            b"\2\xc0",
            b"\4",
            b"\4" + link_id,
            b"\4" + link_id + bytes(60),
            b"\5",
            b"z",
        ):
            port.queue.put_nowait(junk)
        port.queue.put_nowait(b"\5" + b"?" * 8)
        await say(bo, "still there", ANA)
        assert await heard(ana, 1) == ["still there"]
        await leave(ana, bo)

    run(scenario)


def test_an_unknown_link_hint_that_is_forged_costs_one_handshake_and_no_mail(tmp_path: Path) -> None:
    async def scenario() -> None:
        world = World(tmp_path)
        ana, bo = await pair(world)
        tag = device_tag(ana.device_key)
        made = world.core.counters.links_made
        standing = ana.engine.link._standing
        assert standing is not None
        await asyncio.sleep(5)
        for _ in range(50):
            world.ports[tag].queue.put_nowait(b"\5" + standing.keys.link_id)
        await say(bo, "hello", ANA)
        assert await heard(ana, 1) == ["hello"]
        assert world.core.counters.links_made <= made + 1
        await leave(ana, bo)

    run(scenario)


def test_mail_that_no_session_opens_is_passed_and_the_next_message_starts_a_new_session(tmp_path: Path) -> None:
    async def scenario() -> None:
        world = World(tmp_path)
        ana, bo = await pair(world)
        await say(ana, "one", BO)
        await say(bo, "two", ANA)
        assert await heard(bo, 1) == ["one"]
        assert await heard(ana, 1) == ["two"]
        await ana.idle(60)
        await bo.caught_up(10, wait_s=60)
        junk = True

        def spoil(command: RelayCommand) -> RelayCommand:
            if isinstance(command, Delivery) and junk:
                spoilt = tuple(replace(envelope, body=b"j" * len(envelope.body)) for envelope in command.envelopes)
                return replace(command, envelopes=spoilt)
            return command

        cheat(bo, spoil)
        await say(ana, "spoilt", BO)
        await asyncio.sleep(120)
        junk = False
        bo.engine.inbox.tick(0.0)
        await say(ana, "three", BO)
        assert await heard(bo, 1) == ["three"]
        assert bo.state.store.count(RowKind.UNRESOLVED) == 1
        await say(bo, "four", ANA)
        assert await heard(ana, 1) == ["four"]
        await leave(ana, bo)

    run(scenario)


def test_a_peer_cannot_plant_an_own_copy_or_a_read_notice(tmp_path: Path) -> None:
    async def scenario() -> None:
        world = World(tmp_path)
        async with world.new("eve@acme.example") as eve:
            ana, bo = await pair(world)
            await eve.enrolled(60)
            message_id = await say(ana, "to bo", BO)
            planted = wrap_own_copy(eve.compose(Kind.CHAT, b"planted", [BO]), (BO,), bytes(16))
            await eve.send(planted, [ANA], wait_s=60)
            await eve.send(eve.compose(Kind.READ, message_id), [ANA], wait_s=60)
            await ana.caught_up(10, wait_s=60)
            assert ana.kept() == []
            status = ana.status(message_id)
            assert status is not None
            assert status.read_by == ()
            assert kinds(ana) == {"FormatError"}
            await leave(ana, bo)

    run(scenario)


@pytest.mark.parametrize("size", [10, 300_000])
def test_a_relay_that_calls_a_stored_envelope_a_conflict_makes_nobody_see_mail_twice(tmp_path: Path, size: int) -> None:
    async def scenario() -> None:
        world = World(tmp_path)
        ana, bo = await pair(world)
        lies = 1

        def lie(command: RelayCommand) -> RelayCommand:
            nonlocal lies
            if isinstance(command, Receipts) and lies:
                lies -= 1
                return Refusal(command.entries[0].ref, RefusalCode.CONFLICT, "envelope_id", 0, 0, b"")
            return command

        cheat(ana, lie)
        mail = ana.compose(Kind.EMAIL, bytes(size), [BO])
        receipts = await ana.send(mail, [BO], wait_s=600)
        assert lies == 0
        assert receipts
        (message,) = await bo.receive(600)
        assert message.payload == bytes(size)
        assert await bo.receive(60) == []
        await leave(ana, bo)

    run(scenario)


def test_a_relay_that_calls_the_newest_list_stale_is_found_out_and_not_asked_for_ever(tmp_path: Path) -> None:
    async def scenario() -> None:
        world = World(tmp_path)
        ana, bo = await pair(world)
        current = encode(bo.state.own_list)

        def lie(command: RelayCommand) -> RelayCommand:
            if isinstance(command, Receipts):
                return Refusal(command.entries[0].ref, RefusalCode.STALE_LIST, "list_hash", 0, 0, current)
            return command

        cheat(ana, lie)
        with pytest.raises(Refused, match="stale_list"):
            await say(ana, "hello", BO, wait_s=60)
        await leave(ana, bo)

    run(scenario)


@pytest.mark.parametrize("code", [RefusalCode.NOT_ENTITLED, RefusalCode.EXPIRY_INVALID, RefusalCode.MALFORMED])
def test_a_definite_refusal_of_a_submit_ends_the_message_typed(tmp_path: Path, code: RefusalCode) -> None:
    async def scenario() -> None:
        world = World(tmp_path)
        ana, bo = await pair(world)

        def refuse(command: RelayCommand) -> RelayCommand:
            if isinstance(command, Receipts):
                return Refusal(command.entries[0].ref, code, "expiry", 9, 0, b"")
            return command

        cheat(ana, refuse)
        chat = ana.compose(Kind.CHAT, b"hello", [BO])
        with pytest.raises(Refused) as refused:
            await ana.send(chat, [BO], wait_s=60)
        assert (refused.value.code, refused.value.field, refused.value.limit) == (code, "expiry", 9)
        status = ana.status(chat.message_id)
        assert status is not None
        assert status.failed
        assert kinds(ana) == {"Refused"}
        await leave(ana, bo)

    run(scenario)
