"""The first message of an account that is not known: who says that it is theirs (protocol.md section 4.1)."""

import asyncio
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from client.content import Kind
from client.device import Device
from client.first_contacts import LOOK_UPS_BURST, LOOK_UPS_UNDER_WAY_MAX
from client.link import DeliveryEvent
from client.state import Settings
from client.store import Kind as RowKind
from keys.identity import AccountKey, DeviceKeys
from keys.session import Session
from tests.client.test_attacks import cheat, kinds, leave, pair
from tests.client.test_device import ANA, BO, heard, say
from tests.client.test_large import mail_of
from tests.client.test_misbinding import _chat, _delivered
from tests.client.world import START_S, World, run
from wire.commands import Directory, LookUp, Refusal, RelayCommand, decode_device_commands
from wire.prekeys import Bundle

MALLORY = "mallory@acme.example"


def pose_as(device: Device, account: str) -> AccountKey:
    """From now on this device's first messages carry a list of another account, under an account key of its own."""
    key = AccountKey.generate()
    false_list = key.first_list(account, [device.state.keys.entry])
    sessions = device.state.sessions
    initiate = sessions.initiate

    def posing(step: Any, _own_list: Any, *rest: Any) -> None:
        initiate(step, false_list, *rest)

    sessions.initiate = posing  # type: ignore[method-assign, assignment]
    return key


def look_ups_of(world: World) -> list[tuple[str, bool]]:
    """Account and whether bundles were wanted, of each look-up that reaches the relay from now on."""
    seen: dict[tuple[bytes, int], tuple[str, bool]] = {}
    found: list[tuple[str, bool]] = []
    receive = world.core._links.receive

    def tapped(tag: bytes, packet: bytes, now_ms: int) -> Any:
        frame = receive(tag, packet, now_ms)
        if frame is not None:
            for command in decode_device_commands(frame[1]):
                if isinstance(command, LookUp) and (tag, command.ref) not in seen:
                    seen[tag, command.ref] = (command.account, command.want_bundles)
                    found.append((command.account, command.want_bundles))
        return frame

    world.core._links.receive = tapped  # type: ignore[method-assign]
    return found


def withhold(device: Device) -> Callable[[], None]:
    """No look-up of this device is answered until the returned function is called."""
    held = True

    def tamper(command: RelayCommand) -> RelayCommand | None:
        return None if held and isinstance(command, Directory) else command

    cheat(device, tamper)

    def release() -> None:
        nonlocal held
        held = False

    return release


@pytest.mark.parametrize("enrolled", [True, False])
def test_whoever_is_first_to_write_as_somebody_else_is_not_believed(tmp_path: Path, enrolled: bool) -> None:
    async def scenario() -> None:
        world = World(tmp_path)
        bo, mallory = await world.new(BO).__aenter__(), await world.new(MALLORY).__aenter__()
        await bo.enrolled(60)
        await mallory.enrolled(60)
        ana = world.new(ANA)
        if enrolled:
            await ana.__aenter__()
            await ana.enrolled(60)
        pose_as(mallory, ANA)
        await say(mallory, "I am Ana", BO)
        assert await bo.receive(60) == []
        assert bo.state.pins.get(ANA) is None
        assert [(notice.kind, notice.accounts) for notice in bo.notices()] == [("FirstContactRefused", (ANA,))]
        # Never acked: it stays until it expires, and delivery goes on past it.
        assert world.held() == 1
        if not enrolled:
            await ana.__aenter__()
            await ana.enrolled(60)
        await say(ana, "so am I", BO)
        assert await heard(bo, 1) == ["so am I"]
        assert bo.safety_number(ANA) == (await _looked_up(ana, BO)).safety_number(BO)
        await leave(ana, bo, mallory)
        async with world.open(BO) as bo:
            await bo.caught_up(20, wait_s=600)
            assert [message.account for message in bo.kept()] == [ANA]
            assert len(bo.notices()) == 1

    run(scenario)


async def _looked_up(device: Device, account: str) -> Device:
    await device.look_up(account, wait_s=60)
    return device


def test_a_false_list_of_a_known_account_is_told_once_and_stops_no_sending(tmp_path: Path) -> None:
    async def scenario() -> None:
        world = World(tmp_path)
        ana, bo = await pair(world)
        await say(ana, "before", BO)
        assert await heard(bo, 1) == ["before"]
        async with world.new(MALLORY) as mallory:
            await mallory.enrolled(60)
            for _ in range(5):
                pose_as(mallory, ANA)
                await say(mallory, "I am Ana", BO)
                with mallory.state.store.step() as step:
                    mallory.state.sessions.mark_all_stale(step)
            await bo.caught_up(20, wait_s=600)
        assert [(notice.kind, notice.accounts) for notice in bo.notices()] == [("AccountKeyChanged", (ANA,))]
        await say(bo, "still to you", ANA)
        assert await heard(ana, 1) == ["still to you"]
        await leave(ana, bo)

    run(scenario)


@pytest.mark.parametrize("bodies_kept", [True, False])
@pytest.mark.parametrize("restarted", [True, False])
def test_first_messages_wait_for_a_late_answer_and_keep_their_order(
    tmp_path: Path, bodies_kept: bool, restarted: bool
) -> None:
    """The large one among them comes in chunks, of which none is lost."""

    async def scenario() -> None:
        settings = Settings() if bodies_kept else Settings(unresolved_bytes_max=0)
        world = World(tmp_path, settings=settings)
        look_ups = look_ups_of(world)
        async with world.new(ANA) as ana:
            async with world.new(BO) as bo:
                await bo.enrolled(60)
            wanted = [b"one", b"two", mail_of(300_000), b"four"]
            for payload in wanted:
                await ana.send(ana.compose(Kind.EMAIL, payload, [BO]), [BO], wait_s=60)
            look_ups.clear()
            bo = await world.open(BO).__aenter__()
            release = withhold(bo)
            held = world.held()
            assert await bo.receive(100) == []
            assert world.held() == held
            assert bo.state.pins.get(ANA) is None
            if restarted:
                await bo.__aexit__(None, None, None)
                bo = await world.open(BO).__aenter__()
                withhold(bo)()
            else:
                release()
            await asyncio.sleep(120)
            heard_in_order = [message.payload for message in bo.kept()]
            if not bodies_kept:
                # Chunks that were left to the relay are fetched again, so the large message is whole last.
                wanted.append(wanted.pop(2))
            assert heard_in_order == wanted
            await bo.idle(60)
            assert world.held() == 0
            assert bo.notices() == []
            assert set(look_ups) == {(ANA, False)}
            assert len(look_ups) == 1 + restarted
            await leave(bo)

    run(scenario)


def test_a_flood_of_made_up_senders_cannot_make_the_device_look_up_without_end(tmp_path: Path) -> None:
    async def scenario() -> None:
        world, rng = World(tmp_path), random.Random(3)
        look_ups = look_ups_of(world)
        ana, bo = await pair(world)
        under_way = 0
        mailbox, clock = bo.state.keys.mailbox, asyncio.get_running_loop().time
        assert bo.state.ring is not None
        upload = bo.state.ring.rotate(START_S)
        bundle = Bundle(bo.device_key, upload.signed_prekey, upload.kem_prekey, ())
        for number in range(100):
            posed = DeviceKeys.generate(rng.randbytes)
            false_list = AccountKey.generate(rng.randbytes).first_list(f"n{number}@acme.example", [posed.entry])
            session = Session.initiate(posed, false_list, bo.state.keys.entry, bundle)
            for text in (b"hello", b"again"):
                letter = _delivered(session, _chat(rng, text), 0)
                bo.engine.inbox.on_delivery(DeliveryEvent(mailbox, (letter,)), clock())
            under_way = max(under_way, len(bo.engine.inbox.contacts._asked))
        bo.engine.wake()
        await asyncio.sleep(30)
        assert LOOK_UPS_BURST <= len(look_ups) <= LOOK_UPS_BURST + 30
        assert under_way == LOOK_UPS_UNDER_WAY_MAX
        assert len(set(look_ups)) == len(look_ups)
        await say(ana, "behind them all", BO)
        assert await heard(bo, 1) == ["behind them all"]
        assert kinds(bo) == {"FirstContactRefused"}
        # What must be told is bounded too.
        assert len(bo.notices()) == 64
        await leave(ana, bo)

    run(scenario)


def test_a_directory_that_lies_about_a_sender_pins_nothing_and_blocks_nobody(tmp_path: Path) -> None:
    async def scenario() -> None:
        world = World(tmp_path)
        ana, bo = await pair(world)
        cheating = True

        def forge(command: RelayCommand) -> RelayCommand:
            if isinstance(command, Directory) and cheating:
                signed = command.signed_list
                return Directory(command.ref, type(signed)(signed.list, bytes(64)), ())
            return command

        cheat(bo, forge)
        await say(ana, "first", BO)
        assert await bo.receive(60) == []
        assert bo.state.pins.get(ANA) is None
        assert kinds(bo) == {"FirstContactRefused"}
        cheating = False
        await say(bo, "who are you?", ANA)
        assert await heard(ana, 1) == ["who are you?"]
        await leave(ana, bo)

    run(scenario)


def test_a_person_who_is_looked_up_meanwhile_is_heard_in_order(tmp_path: Path) -> None:
    async def scenario() -> None:
        world = World(tmp_path)
        ana, bo = await pair(world)

        def busy(command: RelayCommand) -> RelayCommand | None:
            return (
                None if isinstance(command, Directory) and command.ref in bo.engine.inbox.contacts._asked else command
            )

        cheat(bo, busy)
        await say(ana, "one", BO)
        await asyncio.sleep(10)
        await bo.look_up(ANA, wait_s=60)
        assert bo.kept() == []
        await say(ana, "two", BO)
        assert await heard(bo, 2) == ["one", "two"]
        await leave(ana, bo)

    run(scenario)


def test_who_may_not_look_up_keeps_first_messages_for_later(tmp_path: Path) -> None:
    async def scenario() -> None:
        world = World(tmp_path)
        ana, bo = await pair(world)

        def refuse(command: RelayCommand) -> RelayCommand:
            return Refusal(command.ref, 2, "", 0, 0, b"") if isinstance(command, Directory) else command

        cheat(bo, refuse)
        await say(ana, "one", BO)
        assert await bo.receive(30) == []
        assert bo.notices() == []
        assert bo.state.store.count(RowKind.UNRESOLVED) == 1
        await leave(bo)
        async with world.open(BO) as bo:
            assert await heard(bo, 1) == ["one"]
        await leave(ana)

    run(scenario)
