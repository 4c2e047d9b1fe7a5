"""Devices that share a link: turns, bounds, and what one of them cannot do to the others."""

import asyncio
from pathlib import Path

import pytest
from msgspec.structs import replace

from client.errors import GatewayBusy, Refused, TransportClosed
from client.gateway import Door, GatewayLimits
from client.gateway.limits import Budget
from client.gateway.link import SharedLink
from client.gateway.messages import Answers, Ask, Challenge, Join, sign_join
from client.gateway.seat import Seat
from client.gateway.traffic import Traffic
from tests.client.gateway_world import Carried, a_gateway
from tests.client.world import Faults, World, run
from wire.card import RelayCard
from wire.codec import decode, encode
from wire.commands import (
    Ack,
    AddPrekeys,
    AskRecord,
    Delivered,
    Delivery,
    DeviceCommand,
    Directory,
    Done,
    Enrol,
    LookUp,
    PublishPrekeys,
    RecordPiece,
    Refusal,
    Submit,
    Subscribe,
    Withdraw,
    decode_device_commands,
)
from wire.envelope import Envelope, envelope_id_of
from wire.errors import FormatError, RefusalCode, SignatureError
from wire.limits import COMMANDS_PER_FRAME_MAX, FRAME_BYTES_MAX
from wire.link import HELLO
from wire.signing import SigningKey

ACCOUNTS = [f"{name}@acme.example" for name in ("ana", "bo", "cy", "di")]


def a_submit(ref: int, body_bytes: int = 400) -> Submit:
    token = ref.to_bytes(16, "big")
    envelope = Envelope(bytes(16), envelope_id_of(token), 1_448_928_000, bytes(body_bytes))
    return Submit(ref, "bo@acme.example", bytes(32), (envelope,))


def a_traffic(*names: bytes, limits: GatewayLimits | None = None) -> tuple[Traffic, list[Seat]]:
    """Seats that are on the link, of enrolled devices; the first byte of key and mailbox is the name."""
    traffic = Traffic(limits or GatewayLimits(), bytes)
    seats = [Seat(name.ljust(32, b"."), name.ljust(16, b"."), known=True, enrolled=True) for name in names]
    for seat in seats:
        traffic.admit(seat)
    traffic.link_stands(frozenset(seat.device_key for seat in seats))
    return traffic, seats


class TestTurns:
    def test_who_says_little_is_in_the_first_frame_however_much_another_one_says(self) -> None:
        traffic, (loud, *quiet) = a_traffic(b"loud", b"a", b"b", b"c")
        for ref in range(200):
            traffic.ask(loud, a_submit(ref, 4_000))
        for seat in quiet:
            traffic.ask(seat, a_submit(1))
        first = decode_device_commands(traffic.frames(0.0)[0])
        assert [len(command.envelopes[0].body) for command in first if isinstance(command, Submit)].count(400) == 3
        # All three are among the first five: the loud one has said no more than a quantum before them.
        assert sum(len(command.envelopes[0].body) == 400 for command in first[:5] if isinstance(command, Submit)) == 3

    def test_a_large_command_gathers_its_turns_and_goes(self) -> None:
        traffic, (one, two) = a_traffic(b"one", b"two")
        traffic.ask(one, a_submit(1, 190_000))
        for ref in range(100):
            traffic.ask(two, a_submit(ref, 4_000))
        sent = [command for frame in traffic.frames(0.0) for command in decode_device_commands(frame)]
        assert max(len(command.envelopes[0].body) for command in sent if isinstance(command, Submit)) == 190_000
        assert len(sent) == 101

    def test_a_devices_own_commands_keep_their_order(self) -> None:
        traffic, (one, two) = a_traffic(b"one", b"two")
        for ref in range(300):
            traffic.ask(one, a_submit(ref, 400 + ref))
            traffic.ask(two, a_submit(ref, 400))
        sent = [command for frame in traffic.frames(0.0) for command in decode_device_commands(frame)]
        sizes = [len(command.envelopes[0].body) for command in sent if isinstance(command, Submit)]
        assert [size for size in sizes if size > 400] == list(range(401, 700))

    def test_frames_hold_what_the_protocol_allows_and_no_more(self) -> None:
        traffic, seats = a_traffic(b"a", b"b", b"c")
        for seat in seats:
            for ref in range(400):
                traffic.ask(seat, a_submit(ref, 400 if ref % 3 else 3_000))
        frames = traffic.frames(0.0)
        assert all(len(frame) <= FRAME_BYTES_MAX - 33 for frame in frames)
        counts = [len(decode_device_commands(frame)) for frame in frames]
        assert max(counts) <= COMMANDS_PER_FRAME_MAX
        assert sum(counts) == 1_200

    def test_the_window_leaves_room_for_others_and_opens_with_answers(self) -> None:
        traffic, (loud, other) = a_traffic(b"loud", b"other")
        for ref in range(12):
            traffic.ask(loud, a_submit(ref, 100_000))
        sent = [command for frame in traffic.frames(0.0) for command in decode_device_commands(frame)]
        assert len(sent) == 10
        traffic.ask(other, a_submit(1, 100_000))
        assert len(traffic.frames(0.0)) == 1
        # Refused for now, it is under way no more: what waits behind it may go.
        traffic.hear([Refusal(sent[0].ref, RefusalCode.MAILBOX_FULL, "mailbox", 1, 60_000, b"")], 0.0)
        (frame,) = traffic.frames(0.0)
        assert len(decode_device_commands(frame)) == 1

    def test_small_commands_pass_a_full_window_of_bytes(self) -> None:
        traffic, (loud,) = a_traffic(b"loud", limits=GatewayLimits(window_bytes=200_000, device_window_bytes=200_000))
        traffic.ask(loud, a_submit(1, 190_000))
        assert len(traffic.frames(0.0)) == 1
        traffic.ask(loud, Ack(2, loud.mailbox, (bytes(16),)))
        traffic.ask(loud, a_submit(3, 190_000))
        (frame,) = traffic.frames(0.0)
        assert [type(command) for command in decode_device_commands(frame)] == [Ack]

    def test_commands_under_way_stay_below_what_a_relay_takes_of_a_link(self) -> None:
        traffic, seats = a_traffic(*(bytes((65 + number,)) for number in range(8)))
        for seat in seats:
            for ref in range(1_024):
                traffic.ask(seat, Withdraw(ref, bytes(16), (bytes(16),)))
        sent = [command for frame in traffic.frames(0.0) for command in decode_device_commands(frame)]
        assert len(sent) == 3_072
        # No two differ by more than what fits into one turn.
        counts = [seat.sent_commands for seat in seats]
        assert max(counts) - min(counts) <= GatewayLimits().quantum_bytes // len(encode(sent[0]))
        traffic.hear([Done(tuple(command.ref for command in sent))], 0.0)
        assert sum(len(decode_device_commands(frame)) for frame in traffic.frames(0.0)) == 3_072


class TestRepeating:
    def test_what_is_not_answered_is_repeated_and_what_is_settled_is_not(self) -> None:
        traffic, (one,) = a_traffic(b"one")
        for ref in (1, 2, 3):
            traffic.ask(one, a_submit(ref))
        first = traffic.frames(0.0)
        assert traffic.frames(1.0) == []
        deadline_s = traffic.next_deadline_s()
        assert deadline_s is not None
        assert traffic.frames(deadline_s) == first
        traffic.settle(one, (1, 2, 77))
        (again,) = traffic.frames(100.0)
        assert len(decode_device_commands(again)) == 1
        traffic.settle(one, (3,))
        assert traffic.next_deadline_s() is None
        assert traffic.asked_bytes == 0

    def test_the_same_ref_again_is_queued_once(self) -> None:
        traffic, (one,) = a_traffic(b"one")
        traffic.ask(one, a_submit(1))
        traffic.ask(one, a_submit(1))
        assert len(decode_device_commands(traffic.frames(0.0)[0])) == 1

    def test_two_devices_may_choose_the_same_refs(self) -> None:
        traffic, (one, two) = a_traffic(b"one", b"two")
        traffic.ask(one, LookUp(5, "bo@acme.example", False))
        traffic.ask(two, Withdraw(5, bytes(16), (bytes(16),)))
        asked = decode_device_commands(traffic.frames(0.0)[0])
        assert len({command.ref for command in asked}) == 2
        done = next(command.ref for command in asked if isinstance(command, Withdraw))
        traffic.hear([Done((done, 4_000_000))], 0.0)
        assert traffic.take_heard(one) == []
        (heard,) = traffic.take_heard(two)
        assert isinstance(heard, Answers)
        assert heard.commands == (Done((5,)),)

    def test_a_code_of_a_later_version_is_taken_for_again(self) -> None:
        traffic, (one,) = a_traffic(b"one")
        traffic.ask(one, a_submit(1))
        (command,) = decode_device_commands(traffic.frames(0.0)[0])
        traffic.hear([Refusal(command.ref, 999, "new", 0, 5_000, b"")], 0.0)
        assert traffic.frames(4.9) == []
        assert len(traffic.frames(10.0)) == 1


class TestBounds:
    def test_a_full_queue_is_a_typed_error_and_takes_nothing(self) -> None:
        traffic, (one,) = a_traffic(b"one")
        for ref in range(1_024):
            traffic.ask(one, Withdraw(ref, bytes(16), (bytes(16),)))
        with pytest.raises(
            GatewayBusy, match=r"too many commands wait \(limit 1024\); ask again after 1000 ms"
        ) as busy:
            traffic.ask(one, Withdraw(5_000, bytes(16), (bytes(16),)))
        assert (busy.value.limit, busy.value.retry_after_ms) == (1_024, 1_000)
        assert len(one.asked) == 1_024

    def test_bytes_of_one_device_are_bounded(self) -> None:
        traffic, (one,) = a_traffic(b"one")
        for ref in range(6):
            traffic.ask(one, a_submit(ref, 190_000))
        with pytest.raises(GatewayBusy, match=r"too many bytes wait \(limit 1310720\)"):
            traffic.ask(one, a_submit(6, 190_000))

    def test_loud_devices_cannot_take_what_a_quiet_one_may_always_have(self) -> None:
        limits = GatewayLimits(asked_link_bytes_max=500_000)
        traffic, (one, two, quiet) = a_traffic(b"one", b"two", b"quiet", limits=limits)
        for seat in (one, two):
            with pytest.raises(GatewayBusy):
                for ref in range(100):
                    traffic.ask(seat, a_submit(ref, 60_000))
        traffic.ask(quiet, a_submit(1, 190_000))
        assert len(quiet.asked) == 1

    def test_a_command_larger_than_a_frame_is_refused_by_size(self) -> None:
        traffic, (one,) = a_traffic(b"one")
        envelope = a_submit(1, 190_000).envelopes[0]
        with pytest.raises(FormatError, match="command: has"):
            traffic.ask(one, Submit(1, "bo@acme.example", bytes(32), (envelope, envelope)))

    def test_a_device_that_takes_nothing_holds_a_bounded_number_of_bytes_and_nobody_else_up(self) -> None:
        traffic, (deaf, other) = a_traffic(b"deaf", b"other")
        body = traffic._random(190_000)
        for number in range(1, 100):
            from_relay = a_delivery(deaf.mailbox, number, body), a_delivery(other.mailbox, number, body)
            traffic.hear(from_relay, 0.0)
            assert len(traffic.take_heard(other)) == 1
        assert deaf.heard_bytes < GatewayLimits().heard_bytes_max
        assert deaf.unheard > 0
        assert other.unheard == 0

    def test_an_answer_that_a_device_has_no_room_for_is_asked_for_again(self) -> None:
        traffic, (one,) = a_traffic(b"one", limits=GatewayLimits(heard_bytes_max=0, heard_link_bytes_max=0))
        traffic.ask(one, Withdraw(1, bytes(16), (bytes(16),)))
        (command,) = decode_device_commands(traffic.frames(0.0)[0])
        traffic.hear([a_delivery(one.mailbox, 1, bytes(196_000)), a_delivery(one.mailbox, 2, bytes(64_980))], 0.0)
        traffic.hear([Done((command.ref,))], 0.0)
        assert 1 in one.asked
        assert len(traffic.take_heard(one)) == 1
        (again,) = decode_device_commands(traffic.frames(100.0)[0])
        traffic.hear([Done((again.ref,))], 100.0)
        assert not one.asked

    def test_a_piece_of_a_record_goes_to_who_asked_and_is_asked_again_without_room(self) -> None:
        traffic, (one, other) = a_traffic(b"one", b"other", limits=GatewayLimits(heard_link_bytes_max=0))
        traffic.ask(other, AskRecord(7, other.mailbox, bytes(32), 0))
        (command,) = decode_device_commands(traffic.frames(0.0)[0])
        assert isinstance(command, AskRecord)
        piece = RecordPiece(command.ref, bytes(32), 100_000, 0, bytes(65_536))
        traffic.hear([a_delivery(other.mailbox, 1, bytes(196_000)), piece], 0.0)
        assert 7 in other.asked
        traffic.take_heard(other)
        traffic.hear([piece, piece], 0.0)
        (answers,) = traffic.take_heard(other)
        assert isinstance(answers, Answers)
        assert answers.commands == (replace(piece, ref=7),)
        assert not other.asked
        assert not traffic.take_heard(one)

    def test_attack_a_device_cannot_ask_what_is_held_in_anothers_name(self) -> None:
        traffic, (one, other) = a_traffic(b"one", b"other")
        with pytest.raises(Refused, match="askrecord: refused, not_entitled at mailbox"):
            traffic.ask(one, AskRecord(1, other.mailbox, bytes(32), 0))
        assert not traffic.frames(0.0)

    def test_budget_tells_which_limit_stands_in_the_way(self) -> None:
        budget = Budget(1_000, 600, 100)
        budget.total = 950
        assert budget.fits(0, 100)
        assert not budget.fits(90, 60)
        assert budget.limit_of(90, 60) == 1_000
        assert budget.limit_of(590, 60) == 600


def a_delivery(mailbox: bytes, number: int, body: bytes) -> Delivery:
    return Delivery(mailbox, (Delivered(number, number.to_bytes(16, "big"), 1_448_928_000, body),))


class TestEntitlement:
    @pytest.mark.parametrize(
        ("command", "field"),
        [
            (Ack(1, b"other".ljust(16, b"."), (bytes(16),)), "mailbox"),
            (Subscribe(1, b"other".ljust(16, b"."), 0, 64), "mailbox"),
        ],
    )
    def test_attack_a_device_speaks_for_the_mailbox_of_another_one_on_its_link(
        self, command: DeviceCommand, field: str
    ) -> None:
        traffic, (one, _other) = a_traffic(b"one", b"other")
        with pytest.raises(Refused, match=f"not_entitled at {field}"):
            traffic.ask(one, command)
        assert traffic.frames(0.0) == []

    def test_attack_a_device_that_is_not_enrolled_asks_on_the_entitlement_of_others(self) -> None:
        traffic, (stranger, _other) = a_traffic(b"stranger", b"other")
        stranger.enrolled = False
        commands: list[DeviceCommand] = [
            a_submit(1),
            LookUp(1, "bo@acme.example", True),
            Withdraw(1, bytes(16), (bytes(16),)),
            Subscribe(1, stranger.mailbox, 0, 1),
        ]
        for command in commands:
            with pytest.raises(Refused, match="not_entitled at link"):
                traffic.ask(stranger, command)

    def test_attack_a_device_publishes_or_enrols_for_another_one(self, tmp_path: Path) -> None:
        async def scenario() -> None:
            world = World(tmp_path)
            one, other = Carried(world, ACCOUNTS[0]), Carried(world, ACCOUNTS[1])
            async with a_gateway(world) as gateway:
                await one.enrolled(gateway)
                for command in (
                    PublishPrekeys(9, other.prekeys()),
                    Enrol(9, world.token(other.account), other.signed, other.prekeys()),
                ):
                    with pytest.raises(Refused, match="not_entitled at device_key"):
                        one.join(gateway).ask(command)

        run(scenario)

    def test_attack_a_malformed_command_reaches_no_frame(self, tmp_path: Path) -> None:
        async def scenario() -> None:
            world = World(tmp_path)
            async with a_gateway(world) as gateway:
                one = await Carried(world, ACCOUNTS[0]).enrolled(gateway)
                assert one.member is not None
                with pytest.raises(FormatError, match="command"):
                    one.member.ask(Subscribe(9, b"short", 0, 1))
                with pytest.raises(FormatError, match="command"):
                    one.member.ask(AddPrekeys(9, ()))

        run(scenario)

    def test_what_is_asked_before_the_relay_has_told_of_the_device_waits_and_is_refused_then(
        self, tmp_path: Path
    ) -> None:
        async def scenario() -> None:
            world = World(tmp_path)
            async with a_gateway(world) as gateway:
                one = Carried(world, ACCOUNTS[0])
                one.join(gateway)
                enrolled, early = one.put(lambda ref: Enrol(ref, *one.enrolment())), one.subscribe()
                refused = await early
                assert isinstance(refused, Refusal)
                assert (refused.code, refused.field) == (RefusalCode.NOT_ENTITLED, "link")
                assert isinstance(await enrolled, Done)
                one.join(gateway)
                assert isinstance(await one.subscribe(), Done)

        run(scenario)


class TestMailboxes:
    def test_attack_a_device_claims_the_mailbox_of_another_one_and_the_relay_decides(self, tmp_path: Path) -> None:
        async def scenario() -> None:
            world = World(tmp_path)
            async with a_gateway(world) as gateway:
                liar, victim = Carried(world, ACCOUNTS[0]), Carried(world, ACCOUNTS[1])
                await liar.enrolled(gateway)
                liar.join(gateway, mailbox=victim.mailbox)
                await victim.subscribed(gateway)
                assert len(gateway.lanes) == 2
                answer = await liar.subscribe(victim.mailbox)
                assert isinstance(answer, Refusal)
                assert (answer.code, answer.field) == (RefusalCode.NOT_ENTITLED, "mailbox")
                await victim.submit(victim)
                await asyncio.sleep(1)
                assert len(victim.delivered) == 1
                assert not liar.delivered

        run(scenario)

    def test_a_full_mailbox_of_one_holds_up_nobody_else(self, tmp_path: Path) -> None:
        async def scenario() -> None:
            world = World(tmp_path, mailbox_envelopes_max=3)
            async with a_gateway(world) as gateway:
                one, two = [await Carried(world, account).enrolled(gateway) for account in ACCOUNTS[:2]]
                full, free = [await Carried(world, account).enrolled(gateway) for account in ACCOUNTS[2:]]
                stuck = [one.submit(full) for _ in range(20)]
                await asyncio.sleep(5)
                assert sum(future.done() for future in stuck) == 3
                assert await asyncio.wait_for(two.submit(free), 5) == [1]
                assert await asyncio.wait_for(one.submit(free), 5) == [2]
                assert {refusal.code for refusal in one.refusals} == {RefusalCode.MAILBOX_FULL}
                assert two.refusals == []

        run(scenario)


class TestJoining:
    def test_300_devices_go_over_two_links_and_each_gets_its_own(self, tmp_path: Path) -> None:
        async def scenario() -> None:
            world = World(tmp_path)
            async with a_gateway(world) as gateway:
                devices = [Carried(world, f"d{number}@acme.example") for number in range(300)]
                await asyncio.gather(*(device.subscribed(gateway) for device in devices))
                assert world.core.counters.links == 2
                assert [len(lane.members) for lane in gateway.lanes] == [255, 45]
                pairs = list(zip(devices, devices[1:] + devices[:1], strict=True))
                numbers = await asyncio.gather(*(sender.submit(recipient) for sender, recipient in pairs))
                assert numbers == [[1]] * 300
                await asyncio.sleep(2)
                assert [len(device.delivered) for device in devices] == [1] * 300
                # So many enrolments at once are more than a relay takes from a link that it does not know yet.
                assert {refusal.code for device in devices for refusal in device.refusals} <= {RefusalCode.LINK_QUOTA}

        run(scenario)

    def test_attack_a_signature_of_another_key_leaves_that_device_out_and_nobody_else(self, tmp_path: Path) -> None:
        async def scenario() -> None:
            world = World(tmp_path)
            async with a_gateway(world) as gateway:
                one, bad = Carried(world, ACCOUNTS[0]), Carried(world, ACCOUNTS[1])
                bad.signs = False
                member = bad.join(gateway)
                with pytest.raises(SignatureError, match="link-device"):
                    member.prove(bytes(32), bytes(64))
                await one.enrolled(gateway)
                assert one.confirmed == 1
                assert not member.on_link

        run(scenario)

    def test_a_silent_device_is_left_out_and_comes_in_when_it_signs(self, tmp_path: Path) -> None:
        async def scenario() -> None:
            world = World(tmp_path)
            async with a_gateway(world) as gateway:
                one, late = Carried(world, ACCOUNTS[0]), Carried(world, ACCOUNTS[1])
                late.signs = False
                late.join(gateway)
                await asyncio.wait_for(one.enrolled(gateway), 30)
                await asyncio.sleep(120)
                # Nobody is bothered with more handshakes because of one that does not answer.
                assert one.confirmed <= 2
                assert late.confirmed == 0
                late.signs = True
                late.join(gateway)
                await asyncio.wait_for(late.up.wait(), 30)
                await late.ask(lambda ref: Enrol(ref, *late.enrolment()))

        run(scenario)

    def test_a_device_that_comes_back_is_on_the_link_again_without_a_new_handshake(self, tmp_path: Path) -> None:
        async def scenario() -> None:
            world = World(tmp_path)
            async with a_gateway(world) as gateway:
                one, two = [await Carried(world, account).subscribed(gateway) for account in ACCOUNTS[:2]]
                made, before = world.core.counters.links_made, one.member
                one.join(gateway)
                assert before is not None
                with pytest.raises(TransportClosed, match="carries this device no more"):
                    before.ask(a_submit(1))
                await asyncio.wait_for(one.subscribe(), 5)
                await two.submit(one)
                await asyncio.sleep(1)
                assert len(one.delivered) == 1
                assert world.core.counters.links_made == made

        run(scenario)

    def test_attack_a_gateway_speaks_for_a_device_that_has_not_signed(self, tmp_path: Path) -> None:
        async def scenario() -> None:
            world = World(tmp_path)
            async with a_gateway(world) as gateway:
                one, victim = [await Carried(world, account).enrolled(gateway) for account in ACCOUNTS[:2]]
                assert victim.member is not None
                victim.member.leave()
                await asyncio.sleep(30)
                victim.signs = False
                seat = victim.join(gateway).seat
                await asyncio.sleep(30)
                # The gateway cheats: it takes the device for one of the link's.
                seat.on_link = seat.enrolled = True
                answer = await victim.subscribe()
                assert isinstance(answer, Refusal)
                assert (answer.code, answer.field) == (RefusalCode.NOT_ENTITLED, "mailbox")
                assert one.member is not None
                assert one.member.on_link

        run(scenario)

    def test_devices_come_and_go_and_the_others_are_linked_anew_seldom(self, tmp_path: Path) -> None:
        async def scenario() -> None:
            world = World(tmp_path)
            async with a_gateway(world) as gateway:
                one = await Carried(world, ACCOUNTS[0]).enrolled(gateway)
                made = world.core.counters.links_made
                for number in range(60):
                    restless = Carried(world, f"r{number}@acme.example")
                    member = restless.join(gateway)
                    await asyncio.sleep(0.2)
                    member.leave()
                assert world.core.counters.links_made - made <= 7
                assert await asyncio.wait_for(one.submit(one), 5) == [1]

        run(scenario)

    def test_a_handshake_ends_with_the_last_device_that_could_sign(self) -> None:
        card = RelayCard(SigningKey(bytes(32)).public, "mqtt://127.0.0.1:1")
        link = SharedLink(card, SigningKey(b"g" * 32), bytes, GatewayLimits())
        seat = link.admit(bytes(32), bytes(16))
        assert link.take_packets(0.0) == []
        (hello,) = link.take_packets(1.0)
        assert hello[0] == HELLO
        link.release(seat)
        link.release(seat)
        assert link.take_packets(100.0) == []
        assert link.next_deadline_s() is None
        assert link.can_seat(bytes(16))

    def test_all_links_full_is_a_typed_error(self, tmp_path: Path) -> None:
        async def scenario() -> None:
            world = World(tmp_path)
            limits = GatewayLimits(devices_per_link_max=2, links_max=1)
            async with a_gateway(world, limits) as gateway:
                for number in range(2):
                    gateway.join(bytes((number,)) * 32, bytes((number,)) * 16)
                with pytest.raises(GatewayBusy, match=r"too many links wait \(limit 1\)"):
                    gateway.join(b"x" * 32, b"x" * 16)

        run(scenario)


class TestBroker:
    def test_loss_doubles_and_delays_lose_and_double_nothing(self, tmp_path: Path) -> None:
        async def scenario() -> None:
            world = World(tmp_path, 5)
            async with a_gateway(world) as gateway:
                devices = [await Carried(world, account).subscribed(gateway) for account in ACCOUNTS]
                world.faults = Faults(drop=0.2, duplicate=0.3, delay=0.3)
                futures = [device.submit(other) for _ in range(10) for device in devices for other in devices]
                await asyncio.wait_for(asyncio.gather(*futures), 3_600)
                world.faults = Faults()
                await asyncio.sleep(120)
                for device in devices:
                    assert len({one.envelope_id for one in device.delivered}) == 40
                    assert {one.number for one in device.delivered} == set(range(1, 41))
                assert world.held() == 160

        run(scenario)

    def test_attack_junk_and_forged_hints_from_the_broker_cost_a_handshake_at_most(self, tmp_path: Path) -> None:
        async def scenario() -> None:
            world = World(tmp_path)
            async with a_gateway(world) as gateway:
                one = await Carried(world, ACCOUNTS[0]).enrolled(gateway)
                made = world.core.counters.links_made
                link = gateway.lanes[0].link
                standing = link._handshake.standing
                assert standing is not None
                await asyncio.sleep(5)
                (port,) = world.ports.values()
                junk = [b"", b"\x02", b"\x04" * 40, b"\x05short", b"\xff" * 100, b"\x02" + bytes(200)]
                hint = b"\x05" + standing.keys.link_id
                for packet in [*junk, b"\x05" + bytes(8), hint, hint, hint]:
                    port.queue.put_nowait(packet)
                assert await asyncio.wait_for(one.submit(one), 5) == [1]
                await asyncio.sleep(30)
                assert world.core.counters.links_made == made + 1
                assert await asyncio.wait_for(one.submit(one), 5) == [2]

        run(scenario)

    def test_attack_a_welcome_of_another_relay_gets_no_signature_and_is_told(self, tmp_path: Path) -> None:
        async def scenario() -> None:
            world = World(tmp_path)
            world.seed = b"another relays' seed, 32 bytes.."
            world.store.rotations.clear()
            world.restart()
            async with a_gateway(world) as gateway:
                one = Carried(world, ACCOUNTS[0])
                member = one.join(gateway)
                await asyncio.sleep(60)
                assert not member.on_link
                assert isinstance(gateway.lanes[0].link.last_error, SignatureError)
                assert world.core.counters.links == 0

        run(scenario)


class TestDoors:
    def test_attack_a_join_for_another_challenge_or_by_another_key_is_refused(self, tmp_path: Path) -> None:
        async def scenario() -> None:
            world = World(tmp_path)
            async with a_gateway(world) as gateway:
                one, thief = Carried(world, ACCOUNTS[0]), Carried(world, ACCOUNTS[1])
                first = Door(gateway)
                challenge = decode(Challenge, await first.receive(), "challenge")
                join = sign_join(one.key, world.card.relay_id, challenge.nonce, one.mailbox)
                stolen = sign_join(thief.key, world.card.relay_id, challenge.nonce, one.mailbox)
                for packet in (
                    encode(Join(one.key.public, one.mailbox, stolen.signature)),
                    encode(replace(join, mailbox=thief.mailbox)),
                    b"\x00junk",
                    bytes(FRAME_BYTES_MAX + 100),
                ):
                    door = Door(gateway)
                    with pytest.raises(TransportClosed):
                        await door.send(packet)
                    with pytest.raises(TransportClosed):
                        await door.send(encode(join))
                replayed = Door(gateway)
                with pytest.raises(TransportClosed, match="gateway-join"):
                    await replayed.send(encode(join))
                with pytest.raises(TransportClosed):
                    await asyncio.gather(replayed.receive(), replayed.receive())
                await first.send(encode(join))
                assert [member.device_key for member in gateway.members] == [one.key.public]
                first.close()
                first.close()
                assert gateway.members == ()

        run(scenario)

    def test_what_a_device_says_before_it_has_joined_is_dropped_and_a_full_queue_is_answered_again(
        self, tmp_path: Path
    ) -> None:
        async def scenario() -> None:
            world = World(tmp_path)
            async with a_gateway(world, GatewayLimits(asked_commands_max=2)) as gateway:
                one = await Carried(world, ACCOUNTS[0]).enrolled(gateway)
                door = Door(gateway)
                await door.send(encode(Ask(encode([a_submit(1)]))))
                nonce = decode(Challenge, await door.receive(), "challenge").nonce
                await door.send(encode(sign_join(one.key, world.card.relay_id, nonce, one.mailbox)))
                (seat,) = gateway.lanes[0].link.seats
                seat.enrolled = True
                asked: list[DeviceCommand] = [a_submit(ref) for ref in (1, 2, 3)]
                await door.send(encode(Ask(encode([*asked, Subscribe(4, bytes(16), 0, 1)]))))
                assert seat.heard[-2].commands == (  # type: ignore[union-attr]
                    Refusal(3, RefusalCode.LINK_QUOTA, "gateway commands", 2, 1_000, b""),
                )
                assert seat.heard[-1].commands == (  # type: ignore[union-attr]
                    Refusal(4, RefusalCode.NOT_ENTITLED, "mailbox", 0, 0, b""),
                )
                door.close()

        run(scenario)


def test_a_look_up_is_answered_to_the_device_that_asked(tmp_path: Path) -> None:
    async def scenario() -> None:
        world = World(tmp_path)
        async with a_gateway(world) as gateway:
            one, two = [await Carried(world, account).enrolled(gateway) for account in ACCOUNTS[:2]]
            found, missing = await asyncio.gather(
                one.ask(lambda ref: LookUp(ref, two.account, True)),
                two.ask(lambda ref: LookUp(ref, "nobody@acme.example", False)),
            )
            assert isinstance(found, Directory)
            assert found.signed_list == two.signed
            assert isinstance(missing, Refusal)
            assert missing.code == RefusalCode.UNKNOWN_ACCOUNT

    run(scenario)


def test_reprs_show_no_secret_and_no_content(tmp_path: Path) -> None:
    async def scenario() -> None:
        world = World(tmp_path)
        async with a_gateway(world) as gateway:
            one = await Carried(world, ACCOUNTS[0]).subscribed(gateway)
            await one.submit(one)
            door = Door(gateway)
            lane = gateway.lanes[0]
            standing = lane.link._handshake.standing
            assert standing is not None
            shown = " ".join(map(repr, [gateway, lane, lane.link, one.member, door, *lane.link.seats, standing]))
            assert "redacted" in shown
            for secret in (b"gateway's own seed", standing.keys.up_key, standing.keys.down_key, lane.link.key.seed):
                assert secret.hex() not in shown
                assert repr(secret)[2:-1] not in shown

    run(scenario)
