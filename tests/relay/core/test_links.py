"""Links (protocol.md section 6.2): who gets an answer, what is dropped, what replaces what."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nacl.bindings import crypto_secretbox

from relay.core import CoreConfig, RelayIdentity
from relay.core.links import TokenBucket
from tests.relay.world import START_MS, Device, World, a_pair, seeded
from wire.codec import encode
from wire.commands import LookUp, Submit, Subscribe
from wire.errors import RefusalCode
from wire.limits import FRAME_BYTES_MAX
from wire.link import (
    FRAME,
    HELLO,
    PROVE,
    UNKNOWN_LINK,
    WELCOME,
    DeviceProof,
    FrameOpener,
    FrameSealer,
    LinkKeys,
    accept_welcome,
    begin_hello,
)
from wire.signing import SigningKey

ZERO_NONCE = bytes(24)


def start(world: World, device: Device) -> tuple[LinkKeys, bytes]:
    """A handshake up to the prove, which is returned and not sent."""
    pending = begin_hello(world.relay_id, device.rng.randbytes)
    world.core.receive(device.tag, pending.packet, world.now_ms)
    welcomes = [packet for tag, packet in world.core.take_packets() if tag == device.tag and packet[0] == WELCOME]
    keys, _chain, prove = accept_welcome(pending, world.relay_key.public, welcomes[-1], [device.key])
    return keys, prove


def together(world: World, speaker: Device, *others: Device) -> None:
    """A link on the topic of `speaker` that speaks for the others as well."""
    pending = begin_hello(world.relay_id, speaker.rng.randbytes)
    world.core.receive(speaker.tag, pending.packet, world.now_ms)
    welcome = world.core.take_packets()[0][1]
    devices = [device.key for device in (speaker, *others)]
    keys, _chain, prove = accept_welcome(pending, world.relay_key.public, welcome, devices)
    speaker.sealer, speaker.opener = FrameSealer(keys.link_id, keys.up_key), FrameOpener(keys.down_key)
    world.core.receive(speaker.tag, prove, world.now_ms)
    world.run()


def own_prove(keys: LinkKeys, proofs: list[DeviceProof]) -> bytes:
    return bytes((PROVE,)) + keys.link_id + crypto_secretbox(encode(proofs), ZERO_NONCE, keys.up_key)


def dropped(world: World, tag: bytes, packet: bytes) -> bool:
    """Whether a packet changes nothing but the counters, and gets no answer."""
    before = (world.core.counters.links, world.core.counters.frames, world.core.counters.packets_dropped)
    world.core.receive(tag, packet, world.now_ms)
    answers = world.core.take_packets()
    after = (world.core.counters.links, world.core.counters.frames, world.core.counters.packets_dropped)
    return not answers and after == (before[0], before[1], before[2] + 1)


class TestHandshake:
    def test_linked_tells_what_the_relay_holds_of_the_device(self) -> None:
        world = World()
        ana = world.device("ana")
        world.link(ana)
        (linked,) = ana.linked()
        assert linked.time == world.now_s
        assert [(one.enrolled, one.prekeys_left, one.newest_number) for one in linked.devices] == [(False, 0, 0)]
        ana = world.enrolled("ana")
        bob = world.enrolled("bob")
        world.send(ana, world.submit(ana, bob.account, world.mail(bob), world.mail(bob)))
        world.link(bob)
        (linked,) = bob.linked()
        assert [(one.enrolled, one.prekeys_left, one.newest_number) for one in linked.devices] == [(True, 2, 2)]

    def test_one_link_speaks_for_many_devices(self) -> None:
        world = World()
        one, two = world.device("one"), world.device("two")
        pending = begin_hello(world.relay_id, one.rng.randbytes)
        world.core.receive(one.tag, pending.packet, world.now_ms)
        welcome = world.core.take_packets()[0][1]
        keys, _chain, prove = accept_welcome(pending, world.relay_key.public, welcome, [one.key, two.key])
        one.opener = FrameOpener(keys.down_key)
        world.core.receive(one.tag, prove, world.now_ms)
        world.run()
        assert [item.device_key for item in one.linked()[0].devices] == [one.key.public, two.key.public]

    def test_attack_prove_signed_by_another_key_is_dropped_and_gets_no_second_try(self) -> None:
        world = World()
        ana = world.device("ana")
        keys, prove = start(world, ana)
        mallory = SigningKey(seeded("mallory"))
        forged = own_prove(keys, [DeviceProof(ana.key.public, mallory.sign("link-device", keys.transcript))])
        assert dropped(world, ana.tag, forged)
        assert dropped(world, ana.tag, prove)

    def test_attack_prove_of_another_transcript_is_dropped(self) -> None:
        world = World()
        ana = world.device("ana")
        other, _prove = start(world, ana)
        keys, _prove = start(world, ana)
        forged = own_prove(keys, [DeviceProof(ana.key.public, ana.key.sign("link-device", other.transcript))])
        assert dropped(world, ana.tag, forged)

    def test_attack_prove_signed_under_another_label_is_dropped(self) -> None:
        world = World()
        ana = world.device("ana")
        keys, _prove = start(world, ana)
        forged = own_prove(keys, [DeviceProof(ana.key.public, ana.key.sign("link-relay", keys.transcript))])
        assert dropped(world, ana.tag, forged)

    def test_attack_prove_without_the_links_key_does_not_end_the_handshake(self) -> None:
        world = World(CoreConfig(prove_signatures_burst=1, prove_signatures_per_s=1))
        ana = world.device("ana")
        keys, prove = start(world, ana)
        for _ in range(5):
            assert dropped(world, ana.tag, bytes((PROVE,)) + keys.link_id + b"forged" * 20)
        world.core.receive(ana.tag, prove, world.now_ms)
        assert world.core.counters.links == 1

    def test_attack_prove_on_the_topic_of_somebody_else_is_dropped(self) -> None:
        world = World()
        ana, bob = world.device("ana"), world.device("bob")
        _keys, prove = start(world, ana)
        assert dropped(world, bob.tag, prove)
        world.core.receive(ana.tag, prove, world.now_ms)
        assert world.core.counters.links == 1

    def test_attack_link_on_a_topic_of_none_of_its_devices_is_dropped(self) -> None:
        world = World()
        ana, bob = world.device("ana"), world.device("bob")
        keys, _prove = start(world, bob)
        proof = DeviceProof(ana.key.public, ana.key.sign("link-device", keys.transcript))
        assert dropped(world, bob.tag, own_prove(keys, [proof]))

    def test_attack_prove_that_names_a_device_twice_is_dropped(self) -> None:
        world = World()
        ana = world.device("ana")
        keys, _prove = start(world, ana)
        proof = DeviceProof(ana.key.public, ana.key.sign("link-device", keys.transcript))
        assert dropped(world, ana.tag, own_prove(keys, [proof, proof]))

    def test_signatures_of_proves_are_paid_for(self) -> None:
        world = World(CoreConfig(prove_signatures_burst=1, prove_signatures_per_s=1))
        ana, bob = world.device("ana"), world.device("bob")
        _keys, first = start(world, ana)
        _keys, second = start(world, bob)
        world.core.receive(ana.tag, first, world.now_ms)
        world.run()
        assert dropped(world, bob.tag, second)
        world.now_ms += 1_000
        world.core.receive(bob.tag, second, world.now_ms)
        assert world.core.counters.links == 2

    def test_attack_hello_to_another_relay_is_dropped(self) -> None:
        world = World()
        ana = world.device("ana")
        assert dropped(world, ana.tag, begin_hello(b"x" * 16, ana.rng.randbytes).packet)

    def test_attack_hello_with_a_key_of_small_order_is_dropped(self) -> None:
        world = World()
        ana = world.device("ana")
        packet = bytes((HELLO,)) + encode([1, world.relay_id, bytes(32), bytes(16)])
        assert dropped(world, ana.tag, packet)

    def test_hellos_of_one_topic_are_answered_five_at_once_and_one_a_second(self) -> None:
        world = World()
        ana = world.device("ana")

        def hello() -> int:
            world.core.receive(ana.tag, begin_hello(world.relay_id, ana.rng.randbytes).packet, world.now_ms)
            return len(world.core.take_packets())

        assert [hello() for _ in range(7)] == [1, 1, 1, 1, 1, 0, 0]
        world.now_ms += 999
        assert hello() == 0
        world.now_ms += 1
        assert [hello(), hello()] == [1, 0]

    def test_hellos_of_all_topics_are_answered_200_at_once_and_200_a_second(self) -> None:
        world = World()
        rng = world.device("ana").rng

        def answered(count: int) -> int:
            for _ in range(count):
                world.core.receive(rng.randbytes(16), begin_hello(world.relay_id, rng.randbytes).packet, world.now_ms)
            return len(world.core.take_packets())

        assert answered(230) == 200
        world.now_ms += 100
        assert answered(30) == 20

    def test_handshake_ends_after_ten_seconds(self) -> None:
        world = World()
        ana = world.device("ana")
        _keys, prove = start(world, ana)
        assert world.core.next_deadline() == world.now_ms + 10_000
        world.after(9_999)
        _keys, late = start(world, ana)
        world.after(1)
        assert dropped(world, ana.tag, prove)
        world.core.receive(ana.tag, late, world.now_ms)
        assert world.core.counters.links == 1

    def test_a_topic_keeps_its_newest_handshakes_only(self) -> None:
        world = World(CoreConfig(topic_handshakes_max=2))
        ana = world.device("ana")
        proves = [start(world, ana)[1] for _ in range(3)]
        assert dropped(world, ana.tag, proves[0])
        world.core.receive(ana.tag, proves[1], world.now_ms)
        assert world.core.counters.links == 1

    def test_the_relay_keeps_its_newest_handshakes_only(self) -> None:
        world = World(CoreConfig(pending_handshakes_max=2))
        devices = [world.device(name) for name in ("ana", "bob", "cai")]
        proves = [start(world, device)[1] for device in devices]
        assert dropped(world, devices[0].tag, proves[0])
        for device, prove in zip(devices[1:], proves[1:], strict=True):
            world.core.receive(device.tag, prove, world.now_ms)
        assert world.core.counters.links == 2

    def test_token_buckets_of_topics_are_bounded(self) -> None:
        world = World(CoreConfig(topics_max=3))
        for index in range(10):
            world.core.receive(bytes([index]) * 16, b"\x04" + bytes(60), world.now_ms)
        assert len(world.core._links._topics) == 3

    def test_repeated_prove_is_answered_by_linked_again(self) -> None:
        world = World()
        ana = world.device("ana")
        keys, prove = start(world, ana)
        ana.opener, ana.sealer = FrameOpener(keys.down_key), FrameSealer(keys.link_id, keys.up_key)
        for _ in range(3):
            world.core.receive(ana.tag, prove, world.now_ms)
            world.run()
        assert len(ana.linked()) == 3
        assert world.core.counters.links_made == 1

    def test_attack_other_prove_for_a_link_that_stands_is_dropped(self) -> None:
        world = World()
        ana = world.device("ana")
        keys, prove = start(world, ana)
        world.core.receive(ana.tag, prove, world.now_ms)
        world.run()
        assert dropped(world, ana.tag, own_prove(keys, []))
        assert dropped(world, ana.tag, prove[:-1] + bytes((prove[-1] ^ 1,)))

    def test_attack_replayed_prove_is_answered_no_more_often_than_a_hello(self) -> None:
        world = World()
        ana = world.device("ana")
        keys, prove = start(world, ana)
        ana.opener = FrameOpener(keys.down_key)
        for _ in range(50):
            world.core.receive(ana.tag, prove, world.now_ms)
            world.run()
        assert len(ana.linked()) == 1 + 5


class TestReplacement:
    def test_new_link_replaces_the_old_one_only_after_its_prove(self) -> None:
        pair = a_pair()
        world, ana = pair.world, pair.ana
        old = ana.frame(LookUp(90, ana.account, False))
        _keys, prove = start(world, ana)
        world.core.receive(ana.tag, old, world.now_ms)
        world.run()
        assert [item.ref for item in ana.directories()] == [90]
        late = ana.frame(LookUp(91, ana.account, False))
        world.core.receive(ana.tag, prove, world.now_ms)
        world.core.receive(ana.tag, late, world.now_ms)
        world.run()
        assert ana.unknown == 1
        assert not ana.directories()
        assert world.core.counters.links == 2

    def test_link_of_several_devices_stays_until_all_are_taken_over(self) -> None:
        world = World()
        one, two = world.device("one"), world.device("two")
        pending = begin_hello(world.relay_id, one.rng.randbytes)
        world.core.receive(one.tag, pending.packet, world.now_ms)
        welcome = world.core.take_packets()[0][1]
        _keys, _chain, prove = accept_welcome(pending, world.relay_key.public, welcome, [one.key, two.key])
        world.core.receive(one.tag, prove, world.now_ms)
        world.link(two)
        assert world.core.counters.links == 2
        world.link(one)
        assert world.core.counters.links == 2

    def test_attack_a_gateway_goes_on_for_a_device_that_has_left_it_for_a_link_of_its_own(self) -> None:
        world = World()
        ana, bob, gateway = world.enrolled("ana"), world.enrolled("bob"), world.device("gateway")
        together(world, gateway, ana, bob)
        world.send(gateway, Subscribe(1, ana.mailbox, 0, 8), Subscribe(2, bob.mailbox, 0, 8))
        assert gateway.done() == [1, 2]
        world.link(ana)
        to_ana, to_bob = world.mail(ana), world.mail(bob)
        world.send(ana, world.submit(ana, ana.account, to_ana), world.submit(ana, bob.account, to_bob))
        assert [one.envelope_id for one in gateway.delivered()] == [to_bob.envelope.envelope_id]
        world.send(gateway, Subscribe(3, ana.mailbox, 0, 8), Subscribe(4, bob.mailbox, 0, 8))
        assert [(item.ref, item.field) for item in gateway.refusals()] == [(3, "mailbox")]
        world.subscribe(ana)
        assert [one.envelope_id for one in ana.delivered()] == [to_ana.envelope.envelope_id]

    def test_a_link_goes_on_after_its_device_went_to_another_link_that_has_ended(self) -> None:
        world = World(CoreConfig(links_max=2))
        one, two, three = world.device("one"), world.device("two"), world.device("three")
        together(world, one, two)
        world.link(two)
        world.send(one, LookUp(1, "nobody@acme.example", False))
        # The link that was silent longest makes room: that of `two`.
        world.link(three)
        world.send(one, LookUp(2, "nobody@acme.example", False))
        assert [item.ref for item in one.refusals()] == [1, 2]
        world.link(one)
        assert world.core.counters.links == 2

    def test_the_link_that_was_silent_longest_makes_room(self) -> None:
        world = World(CoreConfig(links_max=2))
        ana, bob = world.device("ana"), world.device("bob")
        world.link(ana)
        world.link(bob)
        world.send(ana, LookUp(1, "nobody@acme.example", False))
        world.link(world.device("cai"))
        assert world.core.counters.links == 2
        world.send(bob, LookUp(1, "nobody@acme.example", False))
        assert bob.unknown == 1
        ana.inbox.clear()
        world.send(ana, LookUp(2, "nobody@acme.example", False))
        assert [item.ref for item in ana.refusals()] == [2]

    def test_answers_to_a_closed_link_are_thrown_away(self) -> None:
        pair = a_pair()
        world, ana, bob = pair.world, pair.ana, pair.bob
        world.core.receive(ana.tag, ana.frame(world.submit(ana, bob.account, world.mail(bob))), world.now_ms)
        batch = world.core.take_batch(world.now_ms)
        assert batch is not None
        keys, prove = start(world, ana)
        world.core.receive(ana.tag, prove, world.now_ms)
        ana.opener = FrameOpener(keys.down_key)
        world.end(batch)
        world.run()
        assert not ana.receipts()
        assert len(bob.delivered()) == 1


class TestFrames:
    def test_attack_replayed_frame_is_dropped(self) -> None:
        pair = a_pair()
        world, ana = pair.world, pair.ana
        frame = ana.frame(LookUp(1, ana.account, True))
        world.core.receive(ana.tag, frame, world.now_ms)
        world.run()
        assert dropped(world, ana.tag, frame)

    def test_attack_reordered_counters_only_drop_what_is_late(self) -> None:
        pair = a_pair()
        world, ana = pair.world, pair.ana
        ana.inbox.clear()
        frames = [ana.frame(LookUp(ref, ana.account, False)) for ref in range(1, 6)]
        for index in (0, 3, 1, 2, 4):
            world.core.receive(ana.tag, frames[index], world.now_ms)
        world.run()
        assert [item.ref for item in ana.directories()] == [1, 4, 5]

    def test_attack_frame_of_the_other_direction_is_dropped(self) -> None:
        pair = a_pair()
        world, ana = pair.world, pair.ana
        world.packets.clear()
        world.send(ana, LookUp(1, ana.account, False))
        ((tag, packet),) = world.packets
        assert packet[0] == FRAME
        assert dropped(world, tag, packet)

    def test_attack_frame_on_the_topic_of_somebody_else_is_dropped(self) -> None:
        pair = a_pair()
        assert dropped(pair.world, pair.bob.tag, pair.ana.frame(LookUp(1, pair.ana.account, False)))

    @given(flip=st.integers(0, 10**6))
    def test_attack_any_changed_bit_of_a_frame_is_dropped_or_an_unknown_link(self, flip: int) -> None:
        pair = a_pair()
        world, ana = pair.world, pair.ana
        frame = bytearray(ana.frame(LookUp(1, ana.account, False)))
        bit = flip % (8 * len(frame))
        frame[bit // 8] ^= 1 << bit % 8
        frames = world.core.counters.frames
        world.core.receive(ana.tag, bytes(frame), world.now_ms)
        assert world.core.counters.frames == frames
        assert all(packet[0] == UNKNOWN_LINK for _tag, packet in world.core.take_packets())

    def test_unknown_link_is_hinted_at_the_rate_of_hellos(self) -> None:
        world = World()
        for _ in range(20):
            world.core.receive(b"t" * 16, bytes((FRAME,)) + b"12345678" + bytes(40), world.now_ms)
        assert world.core.take_packets() == [(b"t" * 16, bytes((UNKNOWN_LINK,)) + b"12345678")] * 5

    def test_attack_frames_of_unknown_links_do_not_use_up_the_hellos_of_a_topic(self) -> None:
        world = World()
        ana = world.device("ana")
        for _ in range(20):
            world.core.receive(ana.tag, bytes((FRAME,)) + b"12345678" + bytes(40), world.now_ms)
        world.core.take_packets()
        world.link(ana)
        assert len(ana.linked()) == 1

    def test_frame_for_a_handshake_under_way_gets_no_hint(self) -> None:
        world = World()
        ana = world.device("ana")
        keys, _prove = start(world, ana)
        early = FrameSealer(keys.link_id, keys.up_key).seal(encode([LookUp(1, "a@acme.example", False)]))
        assert dropped(world, ana.tag, early)

    @pytest.mark.parametrize(
        "packet",
        [b"", b"\x00", b"\x02" + bytes(90), b"\x05" + bytes(8), b"\x06", b"\x03", b"\x04", b"\x04" + bytes(7), b"\x01"],
        ids=repr,
    )
    def test_packet_that_is_none_is_dropped(self, packet: bytes) -> None:
        assert dropped(World(), b"t" * 16, packet)

    def test_packet_above_the_frame_limit_is_dropped(self) -> None:
        assert dropped(World(), b"t" * 16, b"\x04" + bytes(FRAME_BYTES_MAX))

    @given(packet=st.binary(max_size=200))
    def test_no_bytes_make_receive_raise(self, packet: bytes) -> None:
        world = World()
        world.core.receive(b"t" * 16, packet, world.now_ms)
        assert world.core.counters.packets == 1
        assert world.core.counters.links == 0

    @pytest.mark.parametrize(
        ("plain", "words"),
        [
            (b"", "frame: "),
            (b"\x90", "frame: Expected `array` of length >= 1"),
            (b"\x91\xc0", "frame: Expected"),
            (encode([[1, 5]]), "frame: "),
            (encode([[9, 1, "ana@acme.example", True]]) + b"\0", "frame: "),
            (b"\x91\x94\x09\xcc\x01\xb0ana@acme.example\xc3", "frame: is not the canonical encoding"),
        ],
        ids=["empty", "no-command", "nil", "short", "trailing", "long-integer"],
    )
    def test_genuine_frame_that_does_not_decode_is_refused_by_field(self, plain: bytes, words: str) -> None:
        pair = a_pair()
        world, ana = pair.world, pair.ana
        assert ana.sealer is not None
        world.core.receive(ana.tag, ana.sealer.seal(plain), world.now_ms)
        world.run()
        (refusal,) = ana.refusals()
        assert (refusal.ref, refusal.code) == (0, RefusalCode.MALFORMED)
        assert refusal.field.startswith(words)

    def test_answers_of_one_commit_go_in_one_frame_for_each_device(self) -> None:
        pair = a_pair()
        world, ana, bob = pair.world, pair.ana, pair.bob
        for _ in range(8):
            world.core.receive(
                ana.tag, ana.frame(world.submit(ana, bob.account, *(world.mail(bob) for _ in range(8)))), world.now_ms
            )
        world.packets.clear()
        world.run()
        assert sorted(tag for tag, _packet in world.packets) == sorted([ana.tag, bob.tag])
        assert len(bob.delivered()) == 64
        assert sum(len(item.entries) for item in ana.receipts()) == 64

    def test_answers_that_do_not_fit_one_frame_go_in_several(self) -> None:
        pair = a_pair()
        world, ana, bob = pair.world, pair.ana, pair.bob
        sizes = [196_696, 100_000, 150_000, 400, 60_000]
        for size in sizes:
            world.core.receive(ana.tag, ana.frame(world.submit(ana, bob.account, world.mail(bob, size))), world.now_ms)
        world.packets.clear()
        world.run()
        assert all(len(packet) <= FRAME_BYTES_MAX for _tag, packet in world.packets)
        assert [len(item.body) for item in bob.delivered()] == sizes

    def test_more_than_256_refusals_go_in_several_frames(self) -> None:
        pair = a_pair()
        world, ana = pair.world, pair.ana
        world.core.stop()
        for _ in range(2):
            packet = ana.frame(*(LookUp(ana.next_ref(), ana.account, False) for _ in range(200)))
            world.core.receive(ana.tag, packet, world.now_ms)
        world.packets.clear()
        world.run()
        assert len(world.packets) == 2
        assert [item.code for item in ana.refusals()] == [RefusalCode.STOPPING] * 400


class TestQuotas:
    def queued(self, config: CoreConfig, count: int) -> list[tuple[int, str, int, int]]:
        pair = a_pair(config)
        world, ana, bob = pair.world, pair.ana, pair.bob
        submits = [world.submit(ana, bob.account, world.mail(bob)) for _ in range(count)]
        for submit in submits:
            world.core.receive(ana.tag, ana.frame(submit), world.now_ms)
        world.run()
        refusals = ana.refusals()
        assert len(ana.receipts()[0].entries) + len(refusals) == count
        # What was refused works once there is room.
        for refusal in refusals:
            world.send(ana, next(submit for submit in submits if submit.ref == refusal.ref))
        assert len(bob.delivered()) == count
        assert not ana.refusals()
        return [(refusal.code, refusal.field, refusal.limit, refusal.retry_after_ms) for refusal in refusals]

    def test_commands_under_way_on_a_link_are_bounded(self) -> None:
        refused = self.queued(CoreConfig(link_commands_max=3), 5)
        assert refused == [(RefusalCode.LINK_QUOTA, "commands", 3, 1_000)] * 2

    def test_bytes_under_way_on_a_link_are_bounded(self) -> None:
        refused = self.queued(CoreConfig(link_bytes_max=10_000), 25)
        assert set(refused) == {(RefusalCode.LINK_QUOTA, "bytes", 10_000, 1_000)}

    def test_bytes_under_way_in_the_relay_are_bounded(self) -> None:
        refused = self.queued(CoreConfig(pending_bytes_max=10_000), 25)
        assert set(refused) == {(RefusalCode.OVERLOADED, "bytes", 10_000, 1_000)}

    def test_attack_link_of_no_enrolled_device_can_fill_only_a_small_queue(self) -> None:
        world = World(CoreConfig(link_bytes_unentitled_max=1_000))
        eve = world.device("eve")
        world.link(eve)
        eve.inbox.clear()
        for _ in range(20):
            world.core.receive(eve.tag, eve.frame(LookUp(1, "nobody@acme.example", False)), world.now_ms)
        assert world.core._queue.pending_bytes <= 1_000
        world.run()
        codes = [item.code for item in eve.refusals()]
        assert len(codes) == 20
        assert set(codes) == {RefusalCode.LINK_QUOTA, RefusalCode.NOT_ENTITLED}
        assert world.core._queue.pending_bytes == 0

    def test_work_that_a_link_asks_for_is_bounded(self) -> None:
        pair = a_pair(CoreConfig(link_work_burst=20, link_work_per_s=2))
        world, ana = pair.world, pair.ana
        world.send(ana, *(LookUp(ana.next_ref(), ana.account, False) for _ in range(20)))
        refusals = ana.refusals()
        assert refusals
        assert {(item.code, item.field, item.retry_after_ms) for item in refusals} == {
            (RefusalCode.LINK_QUOTA, "work", 1_000)
        }
        world.now_ms += 1_000
        world.send(ana, LookUp(ana.next_ref(), ana.account, False))
        assert not ana.refusals()

    def test_stopping_relay_refuses_and_still_answers_what_it_took(self) -> None:
        pair = a_pair()
        world, ana, bob = pair.world, pair.ana, pair.bob
        taken, late = (world.submit(ana, bob.account, world.mail(bob)) for _ in range(2))
        world.core.receive(ana.tag, ana.frame(taken), world.now_ms)
        world.core.stop()
        world.core.receive(ana.tag, ana.frame(late), world.now_ms)
        world.run()
        assert set(world.check_receipts(taken, ana.receipts())) == {0}
        assert [(item.ref, item.code) for item in ana.refusals()] == [(late.ref, RefusalCode.STOPPING)]


@given(
    takes=st.lists(st.tuples(st.integers(0, 3), st.integers(-500, 2_000)), max_size=40),
    burst=st.integers(1, 5),
    per_s=st.integers(1, 3),
)
def test_token_bucket_never_gives_more_than_burst_and_rate(
    takes: list[tuple[int, int]], burst: int, per_s: int
) -> None:
    bucket = TokenBucket(burst, 0)
    now_ms = highest_ms = given_out = 0
    for count, step_ms in takes:
        now_ms = max(0, now_ms + step_ms)
        if bucket.take(count, burst, per_s, now_ms):
            given_out += count
        highest_ms = max(highest_ms, now_ms)
    ran_ms = sum(max(0, step) for _count, step in takes)
    assert given_out <= burst + per_s * max(highest_ms, ran_ms) // 1_000


STATES = ["nothing", "pending", "linked", "replaced", "rotated", "stopping"]
INPUTS = ["hello", "prove", "prove again", "frame", "old frame", "forged", "unknown link", "welcome", "empty"]


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("packet", INPUTS)
def test_every_input_in_every_state_ends_in_a_legal_state_or_a_drop(state: str, packet: str) -> None:
    world = World()
    ana = world.enrolled("ana")
    assert ana.keys is not None
    old_frame = ana.frame(LookUp(7, ana.account, False))
    if state == "nothing":
        world.restart()
    keys, prove = ana.keys, bytes((PROVE,)) + bytes(60)
    if state != "nothing":
        keys, prove = start(world, ana)
    if state in {"linked", "replaced", "rotated", "stopping"}:
        world.core.receive(ana.tag, prove, world.now_ms)
    if state == "replaced":
        keys, prove = start(world, ana)
        world.core.receive(ana.tag, prove, world.now_ms)
    if state == "rotated":
        world.core.rotate(seeded("next"), world.now_ms)
    if state == "stopping":
        world.core.stop()
    world.core.take_packets()
    sealer = FrameSealer(keys.link_id, keys.up_key)
    frame = sealer.seal(encode([LookUp(9, ana.account, False)]))
    given_packet = {
        "hello": begin_hello(world.relay_id, ana.rng.randbytes).packet,
        "prove": prove,
        "prove again": prove,
        "frame": frame,
        "old frame": old_frame,
        "forged": frame[:-1] + bytes((frame[-1] ^ 1,)),
        "unknown link": bytes((UNKNOWN_LINK,)) + keys.link_id,
        "welcome": bytes((WELCOME,)) + bytes(100),
        "empty": b"",
    }[packet]
    linked = state in {"linked", "replaced", "stopping"}
    for _ in range(2 if packet == "prove again" else 1):
        world.core.receive(ana.tag, given_packet, world.now_ms)
    answers = [answer[0] for _tag, answer in world.core.take_packets()]
    world.core.take_batch(world.now_ms)
    answers += [answer[0] for _tag, answer in world.core.take_packets()]
    # In the state "pending" Ana's first link still stands.
    expected = {
        "hello": [WELCOME],
        "prove": [FRAME] if state == "pending" or linked else [],
        "prove again": [FRAME] if state == "pending" or linked else [],
        "frame": [FRAME] if linked else [] if state == "pending" else [UNKNOWN_LINK],
        "old frame": [FRAME] if state == "pending" else [UNKNOWN_LINK],
        "forged": [] if linked or state == "pending" else [UNKNOWN_LINK],
        "unknown link": [],
        "welcome": [],
        "empty": [],
    }[packet]
    assert answers == expected
    assert world.core.counters.links == (0 if state in {"nothing", "rotated"} else 1)


def test_reprs_show_no_key() -> None:
    world = World()
    identity = repr(RelayIdentity(world.relay_id, b"\x17" * 32, (b"r",), 2))
    assert identity == (f"RelayIdentity(relay_id={world.relay_id.hex()}, seed=<secret>, rotations=1, partition=2)")
    world.enrolled("ana")
    link = next(iter(world.core._links._links.values()))
    assert repr(link) == "Link(devices=1, closed=False, keys=<redacted>)"


def test_submit_and_subscribe_are_not_answered_before_the_device_is_enrolled() -> None:
    world = World()
    bob = world.enrolled("bob")
    eve = world.device("eve")
    world.link(eve)
    eve.inbox.clear()
    mail = world.mail(bob)
    world.send(
        eve,
        Submit(1, bob.account, bytes(32), (mail.envelope,)),
        Submit(2, "nobody@acme.example", bytes(32), (mail.envelope,)),
        Subscribe(3, bob.mailbox, 0, 5),
        Subscribe(4, bytes(16), 0, 5),
    )
    assert {(item.code, item.limit, item.attachment) for item in eve.refusals()} == {(2, 0, b"")}
    assert world.now_ms == START_MS
