"""People, their devices and a relay: the way of one message, end to end, under virtual time."""

import asyncio
from pathlib import Path

import pytest

from client.content import Kind
from client.device import Device
from client.errors import Expired, NotEnrolled, Refused, Unknown
from client.message import Message
from client.state import Settings
from tests.client.world import World, run
from wire.errors import FormatError, RefusalCode

ANA, BO, CY = "ana@acme.example", "bo@globex.example", "cy@acme.example"


async def say(device: Device, text: str, *to: str, wait_s: float = 600) -> bytes:
    chat = device.compose(Kind.CHAT, text.encode(), to)
    await device.send(chat, to, wait_s=wait_s)
    return chat.message_id


async def heard(device: Device, count: int, wait_s: float = 600) -> list[str]:
    """The texts of the next messages, as many as named, and no more."""
    texts: list[str] = []
    while len(texts) < count:
        messages = await device.receive(wait_s)
        assert messages, f"{len(texts)} of {count} arrived"
        texts.extend(message.payload.decode() for message in messages)
    return texts


def test_a_chat_goes_from_one_company_to_the_other_and_is_receipted(tmp_path: Path) -> None:
    async def scenario() -> None:
        world = World(tmp_path)
        async with world.new(ANA) as ana, world.new(BO) as bo:
            await bo.enrolled(30)
            chat = ana.compose(Kind.CHAT, b"salam", [BO])
            receipts = await ana.send(chat, [BO], wait_s=60)
            assert [receipt.account for receipt in receipts] == [BO]
            messages = await bo.receive(30)
            assert [(message.account, message.kind, message.payload) for message in messages] == [
                (ANA, Kind.CHAT, b"salam")
            ]
            assert messages[0].audience == (BO,)
            assert await bo.receive(5) == []
            await bo.idle(60)
            await asyncio.sleep(1)
            status = ana.status(chat.message_id)
            assert status is not None
            assert status.receipted
            assert status.delivered_to == (BO,)
            assert status.read_by == ()
            bo.mark_read(messages)
            await bo.idle(60)
            await asyncio.sleep(1)
            status = ana.status(chat.message_id)
            assert status is not None
            assert status.read_by == (BO,)
            assert world.held() == 0

    run(scenario)


def test_a_conversation_goes_back_and_forth_in_order(tmp_path: Path) -> None:
    async def scenario() -> None:
        world = World(tmp_path)
        async with world.new(ANA) as ana, world.new(BO) as bo:
            await bo.enrolled(30)
            for round_ in range(12):
                await say(ana, f"a{round_}", BO)
                assert await heard(bo, 1) == [f"a{round_}"]
                await say(bo, f"b{round_}", ANA)
                assert await heard(ana, 1) == [f"b{round_}"]

    run(scenario)


def test_a_burst_arrives_whole_and_in_order(tmp_path: Path) -> None:
    async def scenario() -> None:
        world = World(tmp_path)
        async with world.new(ANA) as ana, world.new(BO) as bo:
            await bo.enrolled(30)
            for number in range(200):
                ana.post(ana.compose(Kind.CHAT, str(number).encode(), [BO]), [BO])
            assert await heard(bo, 200) == [str(number) for number in range(200)]

    run(scenario)


def test_mail_waits_for_a_recipient_who_is_offline_and_comes_back(tmp_path: Path) -> None:
    async def scenario() -> None:
        world = World(tmp_path)
        async with world.new(ANA) as ana:
            async with world.new(BO) as bo:
                await bo.enrolled(30)
            await say(ana, "while you were away", BO)
            await say(ana, "and again", BO)
            assert world.held() == 2
            await asyncio.sleep(3 * 86_400)
            async with world.open(BO) as bo:
                assert await heard(bo, 2) == ["while you were away", "and again"]
                await bo.idle(60)
                await asyncio.sleep(1)
                assert world.held() == 0

    run(scenario)


def test_both_sides_start_at_once_and_both_are_heard(tmp_path: Path) -> None:
    async def scenario() -> None:
        world = World(tmp_path)
        async with world.new(ANA) as ana, world.new(BO) as bo:
            await ana.enrolled(30)
            await bo.enrolled(30)
            await asyncio.gather(say(ana, "first a", BO), say(bo, "first b", ANA))
            assert await heard(bo, 1) == ["first a"]
            assert await heard(ana, 1) == ["first b"]
            await asyncio.gather(say(ana, "second a", BO), say(bo, "second b", ANA))
            assert await heard(bo, 1) == ["second a"]
            assert await heard(ana, 1) == ["second b"]

    run(scenario)


def test_several_recipients_and_bcc_is_shown_to_nobody(tmp_path: Path) -> None:
    async def scenario() -> None:
        world = World(tmp_path)
        async with world.new(ANA) as ana, world.new(BO) as bo, world.new(CY) as cy:
            await bo.enrolled(30)
            await cy.enrolled(30)
            mail = ana.compose(Kind.EMAIL, b"Subject: hi\r\n\r\nhi\r\n", [BO])
            receipts = await ana.send(mail, [BO], [CY], wait_s=60)
            assert sorted(receipt.account for receipt in receipts) == [BO, CY] or len(receipts) == 2
            for device in (bo, cy):
                (message,) = await device.receive(60)
                assert message.payload == b"Subject: hi\r\n\r\nhi\r\n"
                assert message.audience == (BO,)
                assert message.recipients == ()

    run(scenario)


async def two_devices(world: World, account: str, name: str) -> tuple[Device, Device]:
    """The first and a further device of an account, both running."""
    first = await world.new(account).__aenter__()
    await first.enrolled(60)
    second = await world.request(name).__aenter__()
    request = second.request_text()
    assert Device.fingerprint_of_request(request) == second.request_fingerprint()
    approval = await first.approve(request, wait_s=60)
    assert second.accept(approval) == account
    await second.enrolled(60)
    return first, second


async def leave(*devices: Device) -> None:
    for device in devices:
        await device.__aexit__(None, None, None)


def test_two_devices_of_one_account_see_the_same_mail(tmp_path: Path) -> None:
    async def scenario() -> None:
        world = World(tmp_path)
        bo, phone = await two_devices(world, BO, "phone")
        async with world.new(ANA) as ana:
            await say(ana, "to both", BO)
            assert await heard(bo, 1) == ["to both"]
            assert await heard(phone, 1) == ["to both"]
            chat = bo.compose(Kind.CHAT, b"answer", [ANA])
            await bo.send(chat, [ANA], [CY][:0], wait_s=60)
            assert await heard(ana, 1) == ["answer"]
            (copy,) = await phone.receive(60)
            assert (copy.account, copy.own_copy, copy.payload, copy.recipients) == (BO, True, b"answer", (ANA,))
        await leave(bo, phone)

    run(scenario)


def test_a_sender_learns_of_a_new_device_from_the_refusal_of_its_stale_list(tmp_path: Path) -> None:
    async def scenario() -> None:
        world = World(tmp_path)
        async with world.new(ANA) as ana, world.new(BO) as bo:
            await bo.enrolled(30)
            await say(ana, "before", BO)
            assert await heard(bo, 1) == ["before"]
            async with world.request("phone") as phone:
                phone.accept(await bo.approve(phone.request_text(), wait_s=60))
                await phone.enrolled(60)
                await say(ana, "after", BO)
                assert await heard(bo, 1) == ["after"]
                assert await heard(phone, 1) == ["after"]
                pinned = ana.state.pins.get(BO)
                assert pinned is not None
                assert pinned.devices.version == 2

    run(scenario)


def test_a_removed_device_gets_nothing_more(tmp_path: Path) -> None:
    async def scenario() -> None:
        world = World(tmp_path)
        bo, phone = await two_devices(world, BO, "phone")
        async with world.new(ANA) as ana:
            await say(ana, "both", BO)
            assert await heard(phone, 1) == ["both"]
            await phone.idle(60)
            await bo.remove_device(phone.state.keys.public, wait_s=60)
            await say(ana, "only one", BO)
            assert await heard(bo, 2) == ["both", "only one"]
            assert await phone.receive(120) == []
            assert [notice.kind for notice in phone.notices()] == ["NotEnrolled"]
            with pytest.raises(FormatError, match="no device of this account"):
                await bo.remove_device(phone.state.keys.public, wait_s=60)
        await leave(bo, phone)

    run(scenario)


def test_only_the_first_device_can_approve(tmp_path: Path) -> None:
    async def scenario() -> None:
        world = World(tmp_path)
        bo, phone = await two_devices(world, BO, "phone")
        async with world.request("tablet") as tablet:
            with pytest.raises(NotEnrolled, match="first device"):
                await phone.approve(tablet.request_text(), wait_s=60)
            with pytest.raises(NotEnrolled, match="no account yet"):
                await tablet.send(tablet.compose(Kind.CHAT, b"x"), [ANA], wait_s=1)
        await leave(bo, phone)

    run(scenario)


def test_safety_numbers_of_the_two_sides_agree(tmp_path: Path) -> None:
    async def scenario() -> None:
        world = World(tmp_path)
        async with world.new(ANA) as ana, world.new(BO) as bo:
            await bo.enrolled(30)
            await ana.enrolled(30)
            with pytest.raises(Unknown, match="never looked up"):
                ana.safety_number(BO)
            await ana.look_up(BO, wait_s=60)
            await bo.look_up(ANA, wait_s=60)
            assert ana.safety_number(BO) == bo.safety_number(ANA)
            assert len(ana.safety_number(BO).split()) == 12
            ana.mark_compared(BO)
            pinned = ana.state.pins.get(BO)
            assert pinned is not None
            assert pinned.pin.compared

    run(scenario)


def test_an_account_that_does_not_exist_is_refused_and_the_others_get_the_mail(tmp_path: Path) -> None:
    async def scenario() -> None:
        world = World(tmp_path)
        async with world.new(ANA) as ana, world.new(BO) as bo:
            await bo.enrolled(30)
            await ana.enrolled(30)
            nobody = "nobody@globex.example"
            with pytest.raises(Refused) as refused:
                await say(ana, "hello", BO, nobody)
            assert refused.value.code is RefusalCode.UNKNOWN_ACCOUNT
            assert await heard(bo, 1) == ["hello"]
            assert [notice.accounts for notice in ana.notices()] == [(nobody,)]

    run(scenario)


def test_a_used_token_is_refused_for_good(tmp_path: Path) -> None:
    async def scenario() -> None:
        world = World(tmp_path)
        token = world.token(ANA)
        world.token = lambda account: token  # type: ignore[method-assign]
        async with world.new(ANA) as ana, world.new(ANA, "thief") as thief:
            await ana.enrolled(60)
            with pytest.raises(Refused) as refused:
                await thief.enrolled(60)
            assert refused.value.code is RefusalCode.TOKEN_INVALID

    run(scenario)


def test_a_message_that_cannot_be_delivered_in_its_time_fails_typed(tmp_path: Path) -> None:
    async def scenario() -> None:
        world = World(tmp_path)
        async with world.new(ANA) as ana:
            await ana.enrolled(60)
            world.kill()
            chat = ana.compose(Kind.CHAT, b"too late", [BO])
            with pytest.raises(Expired) as expired:
                await ana.send(chat, [BO], expiry_s=3_600)
            assert expired.value.message_id == chat.message_id
            assert expired.value.missing == (BO,)
            status = ana.status(chat.message_id)
            assert status is not None
            assert status.failed
            assert not status.receipted
            assert [notice.kind for notice in ana.notices()] == ["Expired"]
            ana.clear_notices(ana.notices())
            assert ana.notices() == []

    run(scenario)


def test_whoever_stops_waiting_has_not_unsent_the_message(tmp_path: Path) -> None:
    async def scenario() -> None:
        world = World(tmp_path)
        async with world.new(ANA) as ana, world.new(BO) as bo:
            await ana.enrolled(60)
            await bo.enrolled(60)
            world.kill()
            with pytest.raises(Unknown, match="ask again"):
                await say(ana, "patience", BO, wait_s=10)
            world.start()
            assert await heard(bo, 1) == ["patience"]

    run(scenario)


def test_a_withdrawn_message_never_arrives(tmp_path: Path) -> None:
    async def scenario() -> None:
        world = World(tmp_path)
        async with world.new(ANA) as ana:
            async with world.new(BO) as bo:
                await bo.enrolled(30)
            message_id = await say(ana, "regret", BO)
            assert world.held() == 1
            assert await ana.withdraw(message_id, wait_s=60) == 1
            assert world.held() == 0
            assert all(receipt.withdrawn for receipt in ana.receipts_of(message_id))
            async with world.open(BO) as bo:
                assert await bo.receive(120) == []

    run(scenario)


def test_a_message_that_is_withdrawn_while_it_is_under_way_never_arrives_and_others_do(tmp_path: Path) -> None:
    async def scenario() -> None:
        world = World(tmp_path)
        async with world.new(ANA) as ana, world.new(BO) as bo:
            await bo.enrolled(60)
            await say(ana, "before", BO)
            chats = [ana.compose(Kind.CHAT, text, [BO]) for text in (b"stays", b"goes", b"stays too")]
            for chat in chats:
                ana.post(chat, [BO])
            # The submit has left, and no receipt is in yet.
            await asyncio.sleep(0.0005)
            assert ana.engine.link.asked_bytes > 0
            assert await ana.withdraw(chats[1].message_id, wait_s=60) == 1
            texts = await heard(bo, 3)
            assert texts[0] == "before"
            assert {"stays", "stays too"} <= set(texts) | {m.payload.decode() for m in await bo.receive(30)}
            await ana.idle(60)
            await asyncio.sleep(30)
            assert world.held() == 0
            status = ana.status(chats[1].message_id)
            assert status is not None
            assert not status.failed

    run(scenario)


def test_messages_that_were_not_taken_are_returned_again_and_taken_ones_are_not(tmp_path: Path) -> None:
    async def scenario() -> None:
        world = World(tmp_path)
        async with world.new(ANA) as ana:
            async with world.new(BO) as bo:
                await bo.enrolled(30)
                await say(ana, "one", BO)
                (message,) = await bo.receive(60, take=False)
                assert await bo.receive(0, take=False) == [message]
            async with world.open(BO) as bo:
                assert await bo.receive(0, take=False) == [message]
                bo.mark_taken([message])
                assert await bo.receive(0) == []
            async with world.open(BO) as bo:
                assert await bo.receive(0) == []
                assert bo.kept() == [message]
                bo.erase([message])
                assert bo.kept() == []

    run(scenario)


def test_a_message_to_oneself_is_kept_and_reaches_the_other_device(tmp_path: Path) -> None:
    async def scenario() -> None:
        world = World(tmp_path)
        bo, phone = await two_devices(world, BO, "phone")
        await say(bo, "note", BO)
        assert await heard(bo, 1) == ["note"]
        (copy,) = await phone.receive(60)
        assert copy.own_copy
        assert copy.recipients == (BO,)
        await leave(bo, phone)

    run(scenario)


def one_time_left(world: World, device: Device) -> list[bytes]:
    rows = world.store.prekeys.values()
    return [row.id for row in rows if row.kind == 3 and row.device_key == device.state.keys.public]


def test_prekeys_are_added_before_they_run_out(tmp_path: Path) -> None:
    async def scenario() -> None:
        world = World(tmp_path)
        async with world.new(ANA) as ana:
            await ana.enrolled(60)
            assert len(one_time_left(world, ana)) == 64
            for number in range(50):
                async with world.new(f"p{number}@globex.example") as device:
                    await say(device, "hello", ANA)
            assert len(await heard(ana, 50)) == 50
            assert len(one_time_left(world, ana)) >= 20

    run(scenario)


def test_prekeys_are_rotated_after_seven_days_and_what_was_under_way_still_opens(tmp_path: Path) -> None:
    async def scenario() -> None:
        world = World(tmp_path)
        async with world.new(ANA) as ana:
            await ana.enrolled(60)
            before = one_time_left(world, ana)
        async with world.new(BO) as bo:
            await say(bo, "on the old prekey", ANA)
        await asyncio.sleep(8 * 86_400)
        async with world.open(ANA) as ana:
            assert await heard(ana, 1) == ["on the old prekey"]
            await asyncio.sleep(10)
            after = one_time_left(world, ana)
            assert len(after) == 64
            assert not set(before) & set(after)

    run(scenario)


@pytest.mark.parametrize(
    ("addresses", "field"),
    [([], "recipients"), (["Ana@acme.example"], "account"), ([f"p{n}@acme.example" for n in range(257)], "recipients")],
)
def test_bad_recipients_are_refused_before_anything_is_kept(tmp_path: Path, addresses: list[str], field: str) -> None:
    async def scenario() -> None:
        world = World(tmp_path)
        async with world.new(ANA) as ana:
            chat = ana.compose(Kind.CHAT, b"x")
            with pytest.raises(FormatError) as refused:
                await ana.send(chat, addresses)
            assert refused.value.field == field
            assert ana.status(chat.message_id) is None

    run(scenario)


def test_email_is_confirmed_only_when_it_is_asked_for(tmp_path: Path) -> None:
    async def scenario() -> None:
        world = World(tmp_path)
        every = Settings(delivered_kinds=frozenset({1, 2, 3}))
        async with world.new(ANA) as ana, world.new(BO) as bo, world.new(CY, settings=every) as cy:
            await bo.enrolled(30)
            await cy.enrolled(30)
            mail = ana.compose(Kind.EMAIL, b"Subject: x\n\nx\n", [BO, CY])
            await ana.send(mail, [BO, CY], wait_s=60)
            await asyncio.sleep(30)
            status = ana.status(mail.message_id)
            assert status is not None
            assert status.delivered_to == (CY,)

    run(scenario)


def test_no_repr_shows_what_was_written(tmp_path: Path) -> None:
    message = Message(ANA, b"d" * 32, Kind.CHAT, b"m" * 16, 0, bytes(16), (BO,), (), False, b"secret", 0, False)
    assert repr(message) == "Message(account='ana@acme.example', kind=CHAT, payload=<6 bytes>)"

    async def scenario() -> None:
        world = World(tmp_path)
        async with world.new(ANA) as ana:
            await ana.enrolled(60)
            for shown in (ana, ana.state, ana.state.device, ana.engine.link, ana.state.sessions, ana.state.store):
                text = repr(shown)
                assert ana.state.keys.signing.seed.hex() not in text
                assert repr(ana.state.keys.signing.seed) not in text

    run(scenario)


def test_whoever_waits_is_told_when_the_device_itself_fails(tmp_path: Path) -> None:
    async def scenario() -> None:
        world = World(tmp_path)
        ana = await world.new(ANA).__aenter__()
        await ana.enrolled(60)
        ana.engine.outbox.pump = None  # type: ignore[method-assign, assignment]
        with pytest.raises(TypeError):
            await say(ana, "never", BO)
        with pytest.raises(TypeError):
            await ana.receive(60)
        with pytest.raises(TypeError):
            await ana.__aexit__(None, None, None)

    run(scenario)
