"""Handshake and frames (protocol.md section 6.2): what the broker may try, and gets nothing by."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wire.codec import encode
from wire.errors import FormatError, SignatureError
from wire.limits import FRAME_BYTES_MAX
from wire.link import (
    FRAME_OVERHEAD_BYTES,
    PROVE,
    DeviceProof,
    FrameOpener,
    FrameSealer,
    Hello,
    LinkKeys,
    PendingHello,
    PendingLink,
    Welcome,
    WelcomeCore,
    accept_prove,
    accept_welcome,
    answer_hello,
    begin_hello,
    link_id_of,
    packet_kind,
    unknown_link,
)
from wire.rotation import relay_id_of, sign_rotation
from wire.signing import SigningKey

RELAY = SigningKey(b"r" * 32)
ROGUE = SigningKey(b"x" * 32)
DEVICES = [SigningKey(b"d" * 32), SigningKey(b"e" * 32)]
RELAY_ID = relay_id_of(RELAY.public)


def entropy(seed: int = 0) -> "random.Random":
    return random.Random(seed)


def handshake(
    relay: SigningKey = RELAY, devices: list[SigningKey] | None = None
) -> tuple[PendingHello, PendingLink, bytes, LinkKeys, bytes]:
    rng = entropy()
    pending = begin_hello(RELAY_ID, rng.randbytes)
    relay_side, welcome = answer_hello(RELAY_ID, relay, (), pending.packet, rng.randbytes)
    keys, _, prove = accept_welcome(pending, RELAY.public, welcome, devices or DEVICES[:1])
    return pending, relay_side, welcome, keys, prove


def test_both_sides_agree_and_the_relay_learns_the_devices() -> None:
    _, relay_side, _, keys, prove = handshake(devices=DEVICES)
    assert relay_side.keys.link_id == keys.link_id == link_id_of(prove)
    assert (relay_side.keys.up_key, relay_side.keys.down_key) == (keys.up_key, keys.down_key)
    assert keys.up_key != keys.down_key
    assert accept_prove(relay_side, prove) == tuple(device.public for device in DEVICES)


def test_one_seed_repeats_a_handshake_to_the_byte() -> None:
    assert handshake()[4] == handshake()[4]


def test_a_relay_without_the_cards_key_is_refused() -> None:
    with pytest.raises(SignatureError, match="link-relay"):
        handshake(relay=ROGUE)


def test_a_rotated_relay_is_followed_from_the_card() -> None:
    pending = begin_hello(RELAY_ID, entropy().randbytes)
    rotation = sign_rotation(RELAY_ID, RELAY, ROGUE, 3, b"h" * 32, 100)
    _, welcome = answer_hello(RELAY_ID, ROGUE, (rotation,), pending.packet, entropy(1).randbytes)
    _, chain, _ = accept_welcome(pending, RELAY.public, welcome, DEVICES)
    assert chain[-1].new_key == ROGUE.public


def test_a_welcome_for_another_hello_is_refused() -> None:
    first = begin_hello(RELAY_ID, entropy(1).randbytes)
    second = begin_hello(RELAY_ID, entropy(2).randbytes)
    _, welcome = answer_hello(RELAY_ID, RELAY, (), first.packet, entropy(3).randbytes)
    with pytest.raises(SignatureError):
        accept_welcome(second, RELAY.public, welcome, DEVICES)


def test_a_hello_to_another_relay_is_refused() -> None:
    pending = begin_hello(bytes(16), entropy().randbytes)
    with pytest.raises(FormatError, match="another relay"):
        answer_hello(RELAY_ID, RELAY, (), pending.packet, entropy().randbytes)


def test_ephemeral_keys_of_small_order_are_refused_on_both_sides() -> None:
    hello = b"\x01" + encode(Hello(1, RELAY_ID, bytes(32), bytes(16)))
    with pytest.raises(FormatError, match="hello ephemeral"):
        answer_hello(RELAY_ID, RELAY, (), hello, entropy().randbytes)
    pending = begin_hello(RELAY_ID, entropy().randbytes)
    with pytest.raises(FormatError, match="welcome ephemeral"):
        pending.agree(bytes(32), bytes(32))


def test_a_prove_of_another_link_or_without_its_key_is_refused() -> None:
    _, relay_side, _, _, prove = handshake()
    other = begin_hello(RELAY_ID, entropy(9).randbytes)
    other_side, _ = answer_hello(RELAY_ID, RELAY, (), other.packet, entropy(10).randbytes)
    with pytest.raises(FormatError, match="does not open"):
        accept_prove(other_side, prove)
    for length in range(len(prove) - 1):
        with pytest.raises(FormatError, match="does not open"):
            accept_prove(relay_side, prove[:length])


def test_a_device_proof_cannot_be_moved_to_another_link() -> None:
    _, relay_side, _, keys, _ = handshake()
    foreign = DEVICES[1].sign("link-device", b"another transcript")
    sealer = FrameSealer(keys.link_id, keys.up_key)
    sealer.counter = -1
    sealed = sealer.seal(encode([DeviceProof(DEVICES[1].public, foreign)]))
    packet = bytes((PROVE,)) + keys.link_id + sealed[17:]
    with pytest.raises(SignatureError, match="link-device"):
        accept_prove(relay_side, packet)


def test_a_device_is_named_once() -> None:
    _, relay_side, _, _, prove = handshake(devices=[DEVICES[0], DEVICES[0]])
    with pytest.raises(FormatError, match="names a device twice"):
        accept_prove(relay_side, prove)


def test_frames_open_once_in_order_with_gaps() -> None:
    *_, keys, _ = handshake()
    sealer, opener = FrameSealer(keys.link_id, keys.up_key), FrameOpener(keys.up_key)
    packets = [sealer.seal(bytes([n])) for n in range(5)]
    assert opener.open(packets[1]) == b"\x01"
    assert opener.open(packets[1]) is None, "replayed"
    assert opener.open(packets[0]) is None, "reordered"
    assert opener.open(packets[4]) == b"\x04"


def test_a_frame_sent_back_to_its_sender_opens_nothing() -> None:
    *_, keys, _ = handshake()
    assert FrameOpener(keys.down_key).open(FrameSealer(keys.link_id, keys.up_key).seal(b"x")) is None


@given(st.binary(max_size=60), st.data())
def test_a_changed_frame_opens_nothing_and_moves_no_counter(plain: bytes, data: st.DataObject) -> None:
    key = b"k" * 32
    packet = bytearray(FrameSealer(b"l" * 8, key).seal(plain))
    # Byte 0 is the kind and 1 to 8 the link id: they choose the key, and are checked by who looks it up.
    packet[data.draw(st.integers(9, len(packet) - 1))] ^= data.draw(st.integers(1, 255))
    opener = FrameOpener(key)
    assert opener.open(bytes(packet)) is None
    assert opener.counter == 0


@given(st.binary(max_size=80))
def test_random_packets_open_nothing(packet: bytes) -> None:
    assert FrameOpener(b"k" * 32).open(packet) is None


def test_a_frame_too_large_is_refused_before_it_is_numbered() -> None:
    sealer = FrameSealer(b"l" * 8, b"k" * 32)
    assert len(sealer.seal(bytes(FRAME_BYTES_MAX - FRAME_OVERHEAD_BYTES))) == FRAME_BYTES_MAX
    with pytest.raises(FormatError, match="limit 262111"):
        sealer.seal(bytes(FRAME_BYTES_MAX - FRAME_OVERHEAD_BYTES + 1))
    assert sealer.counter == 1


@pytest.mark.parametrize(
    ("packet", "problem"),
    [(b"", "is empty"), (b"\0", "0 is unknown"), (b"\x06", "6 is unknown"), (bytes(262_145), "has 262145 bytes")],
)
def test_packets_of_no_kind_are_refused(packet: bytes, problem: str) -> None:
    with pytest.raises(FormatError, match=problem):
        packet_kind(packet)


def test_an_unknown_link_packet_names_its_link() -> None:
    packet = unknown_link(b"l" * 8)
    assert packet_kind(packet) == 5
    assert link_id_of(packet) == b"l" * 8
    with pytest.raises(FormatError, match="link id"):
        link_id_of(packet[:-1])


@given(st.binary(max_size=150))
def test_random_bytes_as_handshake_packets_raise_format_errors_only(data: bytes) -> None:
    with pytest.raises(FormatError):
        answer_hello(RELAY_ID, RELAY, (), b"\x01" + data, entropy().randbytes)
    with pytest.raises(FormatError):
        accept_welcome(begin_hello(RELAY_ID, entropy().randbytes), RELAY.public, b"\x02" + data, DEVICES)


def test_a_welcome_of_another_version_is_refused() -> None:
    core = encode([2, bytes(32), bytes(16)])
    welcome = b"\x02" + encode(Welcome(core, bytes(64), ()))
    with pytest.raises(FormatError, match="welcome"):
        accept_welcome(begin_hello(RELAY_ID, entropy().randbytes), RELAY.public, welcome, DEVICES)
    assert WelcomeCore(1, bytes(32), bytes(16)).version == 1


def test_no_state_of_a_link_shows_a_key() -> None:
    pending, relay_side, _, keys, _ = handshake()
    shown = [repr(pending), repr(relay_side), repr(keys), repr(FrameSealer(b"l" * 8, keys.up_key))]
    shown.append(repr(FrameOpener(keys.up_key)))
    assert shown == [
        f"PendingHello(relay_id={RELAY_ID.hex()}, ephemeral=<redacted>)",
        f"PendingLink(LinkKeys(link_id={keys.link_id.hex()}, keys=<redacted>))",
        f"LinkKeys(link_id={keys.link_id.hex()}, keys=<redacted>)",
        "FrameSealer(counter=0, key=<redacted>)",
        "FrameOpener(counter=0, key=<redacted>)",
    ]
