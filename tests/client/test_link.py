"""The device's side of a link against the wire's relay side, without a relay: handshakes, repetition, batching."""

import random
from collections.abc import Callable, Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.backoff import Backoff, jittered
from client.link import (
    AgainEvent,
    DeliveryEvent,
    DirectoryEvent,
    DoneEvent,
    Event,
    Link,
    ReceiptsEvent,
    RefusedEvent,
    UpEvent,
    WelcomeRefusedEvent,
)
from wire.card import RelayCard
from wire.commands import (
    Ack,
    Delivered,
    Delivery,
    DeviceCommand,
    Directory,
    Done,
    Linked,
    LinkedDevice,
    LookUp,
    Receipts,
    Refusal,
    RelayCommand,
    Submit,
    decode_device_commands,
    encode_commands,
)
from wire.envelope import Envelope
from wire.errors import FormatError, RefusalCode
from wire.identity import SignedList
from wire.limits import BODY_BYTES_MAX, FRAME_BYTES_MAX
from wire.link import (
    FRAME,
    FrameOpener,
    FrameSealer,
    PendingLink,
    accept_prove,
    answer_hello,
    packet_kind,
    unknown_link,
)
from wire.receipt import ReceiptEntry
from wire.rotation import Rotation, sign_rotation
from wire.signing import SigningKey

RELAY, DEVICE = SigningKey(b"r" * 32), SigningKey(b"d" * 32)
CARD = RelayCard(RELAY.public, "mqtt://127.0.0.1:1")


class Relay:
    """The relay's side of one link at a time."""

    def __init__(self, seed: int = 0, key: SigningKey = RELAY, rotations: tuple[Rotation, ...] = ()) -> None:
        self.rng = random.Random(seed)
        self.key = key
        self.rotations = rotations
        self.pending: PendingLink | None = None
        self.opener: FrameOpener | None = None
        self.sealer: FrameSealer | None = None

    def answer(self, hello: bytes) -> bytes:
        self.pending, welcome = answer_hello(CARD.relay_id, self.key, self.rotations, hello, self.rng.randbytes)
        return welcome

    def take_prove(self, prove: bytes) -> bytes:
        assert self.pending is not None
        assert accept_prove(self.pending, prove) == (DEVICE.public,)
        keys = self.pending.keys
        self.opener, self.sealer = FrameOpener(keys.up_key), FrameSealer(keys.link_id, keys.down_key)
        return self.say(Linked(1_448_928_000, (LinkedDevice(DEVICE.public, True, 64, 7),)))

    def say(self, *commands: RelayCommand) -> bytes:
        assert self.sealer is not None
        return self.sealer.seal(encode_commands(commands))

    def hear(self, packets: Sequence[bytes]) -> list[DeviceCommand]:
        assert self.opener is not None
        heard: list[DeviceCommand] = []
        for packet in packets:
            assert packet_kind(packet) == FRAME
            assert len(packet) <= FRAME_BYTES_MAX
            plain = self.opener.open(packet)
            assert plain is not None
            heard.extend(decode_device_commands(plain))
        return heard


def link_of(seed: int = 1) -> Link:
    return Link(CARD, [DEVICE], random.Random(seed).randbytes)


def up(link: Link, relay: Relay, now_s: float = 0.0) -> list[Event]:
    """Bring a link up; the events of the last packet."""
    link.connect(now_s)
    (hello,) = link.take_packets(now_s)
    assert link.receive(relay.answer(hello), now_s) == []
    assert not link.up
    (prove,) = link.take_packets(now_s)
    return link.receive(relay.take_prove(prove), now_s)


def look_up(account: str) -> Callable[[int], LookUp]:
    return lambda ref: LookUp(ref, account, want_bundles=False)


def submit(size: int) -> Callable[[int], Submit]:
    envelope = Envelope(b"m" * 16, b"e" * 16, 0, bytes(size))
    return lambda ref: Submit(ref, "bo@globex.example", bytes(32), (envelope,))


def test_a_handshake_ends_with_a_link_and_tells_what_the_relay_holds() -> None:
    link, relay = link_of(), Relay()
    (event,) = up(link, relay)
    assert isinstance(event, UpEvent)
    assert link.up
    assert (event.time, event.devices[0].prekeys_left, event.rotations) == (1_448_928_000, 64, ())
    assert link.next_deadline_s() is None
    assert "state=up" in repr(link)


def test_a_hello_that_is_not_answered_is_repeated_ever_more_slowly() -> None:
    link = link_of()
    link.connect(0.0)
    times = [0.0]
    hellos = link.take_packets(0.0)
    for _ in range(10):
        deadline_s = link.next_deadline_s()
        assert deadline_s is not None
        assert link.take_packets(deadline_s - 0.001) == []
        hellos += link.take_packets(deadline_s)
        times.append(deadline_s)
    assert len(set(hellos)) == 11
    waits = [later - sooner for sooner, later in pairwise(times)]
    assert 0.75 <= waits[0] <= 1.25
    assert all(45 <= wait <= 75 for wait in waits[7:])


def test_a_welcome_of_another_relay_is_refused_and_the_handshake_goes_on() -> None:
    link, relay = link_of(), Relay()
    link.connect(0.0)
    (hello,) = link.take_packets(0.0)
    (event,) = link.receive(Relay(key=SigningKey(b"w" * 32)).answer(hello), 0.0)
    assert isinstance(event, WelcomeRefusedEvent)
    assert str(event.error) == "link-relay: signature does not verify"
    assert link.receive(relay.answer(hello), 0.0) == []
    (prove,) = link.take_packets(0.0)
    assert isinstance(link.receive(relay.take_prove(prove), 0.0)[0], UpEvent)


def test_a_welcome_to_another_hello_is_refused() -> None:
    link, relay = link_of(), Relay()
    link.connect(0.0)
    (hello,) = link.take_packets(0.0)
    old = relay.answer(hello)
    deadline_s = link.next_deadline_s()
    assert deadline_s is not None
    link.take_packets(deadline_s)
    (event,) = link.receive(old, deadline_s)
    assert isinstance(event, WelcomeRefusedEvent)


def test_rotations_are_followed_and_never_forgotten() -> None:
    new_key = SigningKey(b"n" * 32)
    rotation = sign_rotation(CARD.relay_id, RELAY, new_key, 9, bytes(32), 1_448_928_000)
    link = link_of()
    (event,) = up(link, Relay(key=new_key, rotations=(rotation,)))
    assert isinstance(event, UpEvent)
    assert [record.new_key for record in event.rotations] == [new_key.public]
    forgetful = Link(CARD, [DEVICE], random.Random(2).randbytes, event.rotations)
    forgetful.connect(0.0)
    (hello,) = forgetful.take_packets(0.0)
    (refused,) = forgetful.receive(Relay().answer(hello), 0.0)
    assert isinstance(refused, WelcomeRefusedEvent)
    assert str(refused.error) == "rotations: do not go on from those seen before"


def test_commands_are_repeated_until_they_are_answered_and_no_longer() -> None:
    link, relay = link_of(), Relay()
    up(link, relay)
    ref = link.ask(look_up("a@b.c"))
    now_s, waits = 0.0, []
    for _ in range(8):
        (command,) = relay.hear(link.take_packets(now_s))
        assert command == LookUp(ref, "a@b.c", False)
        assert link.take_packets(now_s) == []
        deadline_s = link.next_deadline_s()
        assert deadline_s is not None
        waits.append(deadline_s - now_s)
        now_s = deadline_s
    assert 1.5 <= waits[0] <= 2.5
    assert 3 <= waits[1] <= 5
    assert all(45 <= wait <= 75 for wait in waits[6:])
    signed = SignedList(b"x", bytes(64))
    assert link.receive(relay.say(Directory(ref, signed, ())), now_s) == [DirectoryEvent(ref, signed, ())]
    assert link.next_deadline_s() is None
    assert link.take_packets(now_s + 1_000) == []
    assert link.receive(relay.say(Directory(ref, signed, ())), now_s) == []


def test_many_commands_travel_in_one_frame_of_at_most_256() -> None:
    link, relay = link_of(), Relay()
    up(link, relay)
    refs = [link.ask(look_up(f"p{number}@b.c")) for number in range(600)]
    packets = link.take_packets(0.0)
    assert len(packets) == 3
    assert [command.ref for command in relay.hear(packets)] == refs
    events = link.receive(relay.say(Done(tuple(refs))), 0.0)
    assert events == [DoneEvent(ref) for ref in refs]
    assert link.asked_bytes == 0


def test_the_window_holds_back_large_commands_but_no_ack() -> None:
    link, relay = link_of(), Relay()
    up(link, relay)
    large = [link.ask(submit(BODY_BYTES_MAX)) for _ in range(12)]
    ack = link.ask(lambda ref: Ack(ref, b"m" * 16, (b"t" * 16,)))
    sent = [command.ref for command in relay.hear(link.take_packets(0.0))]
    assert sent == [*large[:5], ack]
    assert link.take_packets(0.0) == []
    for ref in large[:5]:
        link.settle(ref)
    assert [command.ref for command in relay.hear(link.take_packets(0.0))] == large[5:10]


def test_a_command_that_fits_no_frame_is_refused_before_it_is_queued() -> None:
    link = link_of()
    envelope = Envelope(b"m" * 16, b"e" * 16, 0, bytes(BODY_BYTES_MAX))
    with pytest.raises(FormatError, match=r"command: has \d+ bytes"):
        link.ask(lambda ref: Submit(ref, "bo@globex.example", bytes(32), (envelope, envelope)))
    assert link.asked_bytes == 0


@pytest.mark.parametrize("code", list(RefusalCode))
def test_definite_refusals_end_a_command_and_others_only_delay_it(code: RefusalCode) -> None:
    link, relay = link_of(), Relay()
    up(link, relay)
    ref = link.ask(look_up("a@b.c"))
    link.take_packets(0.0)
    (event,) = link.receive(relay.say(Refusal(ref, code, "field", 3, 7_000, b"")), 0.0)
    if code.definite:
        assert event == RefusedEvent(ref, code, "field", 3, b"")
        assert not link.is_asked(ref)
        return
    assert event == AgainEvent(ref, code)
    assert link.take_packets(6.9) == []
    deadline_s = link.next_deadline_s()
    assert deadline_s is not None
    assert 7 <= deadline_s <= 9
    assert [command.ref for command in relay.hear(link.take_packets(deadline_s))] == [ref]


def test_a_refusal_of_an_unknown_code_is_taken_for_again() -> None:
    link, relay = link_of(), Relay()
    up(link, relay)
    ref = link.ask(look_up("a@b.c"))
    link.take_packets(0.0)
    assert link.receive(relay.say(Refusal(ref, 999, "new", 0, 0, b"")), 0.0) == []
    assert link.is_asked(ref)
    assert [command.ref for command in relay.hear(link.take_packets(6.0))] == [ref]


def test_an_unknown_link_hint_keeps_the_old_link_until_the_new_one_is_confirmed() -> None:
    link, relay = link_of(), Relay()
    up(link, relay)
    assert link._standing is not None
    old_id, old_sealer = link._standing.keys.link_id, relay.sealer
    assert link.receive(unknown_link(b"?" * 8), 5.0) == []
    assert link.take_packets(5.0) == []
    link.receive(unknown_link(old_id), 5.0)
    link.receive(unknown_link(old_id), 5.0)
    (hello,) = link.take_packets(5.0)
    ref = link.ask(look_up("a@b.c"))
    assert [command.ref for command in relay.hear(link.take_packets(5.0))] == [ref]
    fresh = Relay(seed=9)
    link.receive(fresh.answer(hello), 5.0)
    (prove,) = link.take_packets(5.0)
    assert old_sealer is not None
    delivery = Delivery(b"m" * 16, (Delivered(1, b"e" * 16, 0, bytes(400)),))
    assert link.receive(old_sealer.seal(encode_commands([delivery])), 5.0) == [
        DeliveryEvent(b"m" * 16, delivery.envelopes)
    ]
    assert isinstance(link.receive(fresh.take_prove(prove), 5.0)[0], UpEvent)
    # What was asked on the old link is asked again on the new one at once.
    assert [command.ref for command in fresh.hear(link.take_packets(5.0))] == [ref]
    assert link.receive(old_sealer.seal(encode_commands([delivery])), 5.0) == []


def test_a_replayed_frame_says_nothing_the_second_time() -> None:
    link, relay = link_of(), Relay()
    up(link, relay)
    frame = relay.say(Delivery(b"m" * 16, (Delivered(1, b"e" * 16, 0, bytes(400)),)))
    assert len(link.receive(frame, 0.0)) == 1
    assert link.receive(frame, 0.0) == []


def test_receipts_for_commands_that_nobody_asked_are_dropped() -> None:
    link, relay = link_of(), Relay()
    up(link, relay)
    ref = link.ask(submit(400))
    link.take_packets(0.0)
    entries = tuple(ReceiptEntry(which, 0, 1, 0, b"") for which in (ref, (ref + 5) % 2**32))
    (event,) = link.receive(relay.say(Receipts(b"h", bytes(64), entries)), 0.0)
    assert event == ReceiptsEvent(b"h", bytes(64), entries[:1])
    assert link.receive(relay.say(Receipts(b"h", bytes(64), entries[1:])), 0.0) == []
    assert link.is_asked(ref)


def test_a_second_linked_adds_nothing() -> None:
    link, relay = link_of(), Relay()
    up(link, relay)
    assert link.receive(relay.say(Linked(1, (LinkedDevice(DEVICE.public, False, 0, 0),))), 0.0) == []


def test_a_first_frame_without_linked_confirms_nothing() -> None:
    link, relay = link_of(), Relay()
    link.connect(0.0)
    (hello,) = link.take_packets(0.0)
    link.receive(relay.answer(hello), 0.0)
    (prove,) = link.take_packets(0.0)
    relay.take_prove(prove)
    assert link.receive(relay.say(Done((1,))), 0.0) == []
    assert not link.up
    assert "state=proving" in repr(link)


@given(junk=st.binary(max_size=300), kind=st.integers(0, 6))
def test_no_bytes_from_the_broker_raise_or_bring_a_link_up(junk: bytes, kind: int) -> None:
    link, relay = link_of(), Relay()
    assert link.receive(bytes([kind]) + junk, 0.0) == []
    link.connect(0.0)
    (hello,) = link.take_packets(0.0)
    assert all(isinstance(event, WelcomeRefusedEvent) for event in link.receive(bytes([kind]) + junk, 0.0))
    link.receive(relay.answer(hello), 0.0)
    (prove,) = link.take_packets(0.0)
    assert link.receive(bytes([kind]) + junk, 0.0) == []
    assert not link.up
    assert isinstance(link.receive(relay.take_prove(prove), 0.0)[0], UpEvent)
    assert link.receive(bytes([kind]) + junk, 0.0) == []


@given(seed=st.integers(0, 2**32), base_s=st.floats(0.1, 100))
def test_jitter_stays_within_a_quarter(seed: int, base_s: float) -> None:
    assert 0.75 * base_s <= jittered(base_s, random.Random(seed).randbytes) <= 1.25 * base_s


def test_a_backoff_doubles_to_its_cap_and_starts_anew_after_a_success() -> None:
    backoff = Backoff(1.0, 8.0, lambda size: b"\x80" + bytes(size - 1))
    waits = [round(backoff.next_s(), 2) for _ in range(5)]
    assert waits == [1.0, 2.0, 4.0, 8.0, 8.0]
    backoff.reset()
    assert round(backoff.next_s(), 2) == 1.0
