"""Sessions: first messages, order, volunteering, storage (protocol.md sections 4.1 to 4.3)."""

import msgspec
import pytest

from keys.errors import AuthenticationFailed, DecryptionError, HeaderUnknown, MessageKeyGone
from keys.handshake import first_offset
from keys.message import associated_start, open_with_message_key
from keys.session import Session, ephemeral_of
from tests.keys.people import NOW_S, Person, SeededEntropy, envelope_id, pair
from wire.envelope import body_lengths
from wire.errors import FormatError


def begun(one_time: bool = True) -> tuple[Person, Person, Session]:
    ana, ben = Person.make("ana"), Person.make("ben")
    return ana, ben, ana.initiate(ben, one_time)


def send(session: Session, number: int) -> bytes:
    return session.encrypt(b"message %d" % number, envelope_id(number))


def opens(session: Session, body: bytes, number: int) -> bool:
    return session.decrypt(body, envelope_id(number), NOW_S) == b"message %d" % number


def test_first_session_carries_messages_both_ways() -> None:
    a, b = pair()
    for number in range(10, 40, 2):
        assert opens(b, send(a, number), number)
        assert opens(a, send(b, number + 1), number + 1)


def test_session_without_one_time_prekey_carries_messages() -> None:
    a, b = pair(one_time=False)
    assert opens(b, send(a, 3), 3)


def test_handshake_is_repeated_until_the_first_reply_and_no_longer() -> None:
    _, ben, a = begun()
    bodies = [send(a, number) for number in range(3)]
    offset = first_offset(bodies[0])
    assert {body[:16] for body in bodies} == {ben.upload.one_time[0].id}
    assert len({body[128:offset] for body in bodies}) == 1
    assert not a.replied
    b = ben.accept(bodies[0], 0).session
    assert b.replied
    assert b.accepted
    assert not a.accepted
    assert opens(a, send(b, 10), 10)
    assert a.replied
    assert len(send(a, 11)) == 144 + 256


def test_lengths_are_those_that_bodies_may_have() -> None:
    _, ben, a = begun()
    lengths = body_lengths()
    first = a.encrypt(bytes(3_000), envelope_id(1))
    assert len(first) in lengths
    reply = ben.accept(first, 1).session.encrypt(bytes(5_000), envelope_id(2))
    assert len(reply) in lengths


def test_first_bodies_in_any_order_begin_one_session() -> None:
    _, ben, a = begun()
    bodies = [send(a, number) for number in range(4)]
    b = ben.accept(bodies[2], 2).session
    for number in (3, 0, 1):
        assert ephemeral_of(bodies[number]) == b.ephemeral
        assert b.is_first(bodies[number])
        assert opens(b, bodies[number], number)


def test_late_first_bodies_open_after_the_sender_has_gone_on() -> None:
    _, ben, a = begun()
    bodies = [send(a, number) for number in range(4)]
    b = ben.accept(bodies[0], 0).session
    assert opens(a, send(b, 10), 10)
    assert opens(b, send(a, 11), 11)
    b = Session.from_bytes(b.to_bytes(), ben.entropy)
    for number in (3, 1):
        opening = b.message_key_of(bodies[number], envelope_id(number), NOW_S)
        assert open_with_message_key(bodies[number], envelope_id(number), opening) == b"message %d" % number
        assert opens(b, bodies[number], number)
    before = b.to_bytes()
    with pytest.raises(MessageKeyGone):
        opens(b, bodies[3], 3)
    assert opens(b, bodies[2], 2)
    with pytest.raises(HeaderUnknown):
        opens(b, bodies[2], 2)  # no skipped key of that chain is left, and its header key is gone with the last
    assert b.to_bytes() != before


def test_first_body_that_was_opened_does_not_open_again() -> None:
    _, ben, a = begun()
    bodies = [send(a, number) for number in range(3)]
    b = ben.accept(bodies[2], 2).session
    with pytest.raises(MessageKeyGone):
        opens(b, bodies[2], 2)
    assert opens(b, bodies[0], 0)
    with pytest.raises(MessageKeyGone):
        opens(b, bodies[0], 0)


def test_first_body_whose_handshake_differs_is_refused() -> None:
    """'Neither may differ within a session': a sender who changes the sealed sender in the middle is refused."""
    _, ben, a = begun()
    b = ben.accept(send(a, 0), 0).session
    a._prefix = a._prefix[:-1] + bytes([a._prefix[-1] ^ 1])
    before = b.to_bytes()
    with pytest.raises(AuthenticationFailed, match="handshake of a first body"):
        opens(b, send(a, 1), 1)
    assert b.to_bytes() == before


@pytest.mark.parametrize("one_time", [True, False])
def test_swapped_envelope_id_is_refused(one_time: bool) -> None:
    a, b = pair(one_time)
    body, before = send(a, 5), b.to_bytes()
    with pytest.raises(AuthenticationFailed, match="content"):
        b.decrypt(body, envelope_id(6), NOW_S)
    with pytest.raises(FormatError, match=r"envelope id: has 15 bytes \(limit 16\)"):
        b.decrypt(body, bytes(15), NOW_S)
    assert b.to_bytes() == before
    assert opens(b, body, 5)


def test_wrong_recipient_is_refused() -> None:
    a, b = pair()
    _, other = pair(one_time=False)
    body = send(a, 5)
    for session in (a, other):
        with pytest.raises(HeaderUnknown):
            opens(session, body, 5)
    assert opens(b, body, 5)


def test_other_suite_is_refused() -> None:
    a, b = pair()
    a._associated_out = associated_start(a.own_device, a.peer_device)[:-66] + b"\x50\x49" + a._associated_out[-64:]
    with pytest.raises(AuthenticationFailed, match="content"):
        opens(b, send(a, 5), 5)


def test_other_sender_device_is_refused() -> None:
    a, b = pair()
    a._associated_out = associated_start(b"x" * 32, a.peer_device)
    with pytest.raises(AuthenticationFailed, match="content"):
        opens(b, send(a, 5), 5)


# ---------------------------------------------------------------------------------------------- volunteering


def test_message_key_opens_its_row_and_no_other_and_moves_nothing() -> None:
    a, b = pair()
    bodies = [send(a, number) for number in range(3)]
    before = b.to_bytes()
    openings = [b.message_key_of(body, envelope_id(number), NOW_S) for number, body in enumerate(bodies)]
    assert b.to_bytes() == before
    for number, opening in enumerate(openings):
        assert open_with_message_key(bodies[number], envelope_id(number), opening) == b"message %d" % number
        other = (number + 1) % 3
        with pytest.raises(AuthenticationFailed):
            open_with_message_key(bodies[other], envelope_id(other), opening)
    assert (openings[0].sender_device, openings[0].recipient_device) == (a.own_device, b.own_device)


def test_message_key_of_mail_that_skipped_keys_cover() -> None:
    a, b = pair()
    late = send(a, 1)
    assert opens(b, send(a, 2), 2)
    before = b.to_bytes()
    opening = b.message_key_of(late, envelope_id(1), NOW_S)
    assert b.to_bytes() == before
    assert open_with_message_key(late, envelope_id(1), opening) == b"message 1"
    assert opens(b, late, 1)


def test_message_key_that_would_not_open_the_row_is_not_given() -> None:
    a, b = pair()
    body = send(a, 1)
    with pytest.raises(AuthenticationFailed):
        b.message_key_of(body[:-1] + bytes([body[-1] ^ 1]), envelope_id(1), NOW_S)
    with pytest.raises(AuthenticationFailed):
        b.message_key_of(body, envelope_id(2), NOW_S)


# ---------------------------------------------------------------------------------------------- storage


def test_session_survives_storage_at_every_step() -> None:
    ana, ben, a = begun()
    a = Session.from_bytes(a.to_bytes(), ana.entropy)
    body = send(a, 0)
    a = Session.from_bytes(a.to_bytes(), ana.entropy)
    b = Session.from_bytes(ben.accept(body, 0).session.to_bytes(), ben.entropy)
    for number in range(1, 9, 2):
        reply = send(b, number)
        b = Session.from_bytes(b.to_bytes(), ben.entropy)
        assert opens(a, reply, number)
        a = Session.from_bytes(a.to_bytes(), ana.entropy)
        body = send(a, number + 1)
        assert opens(b, body, number + 1)
    assert Session.from_bytes(a.to_bytes()).to_bytes() == a.to_bytes()


def test_damaged_session_is_refused() -> None:
    _, _, a = begun()
    state = a.to_bytes()
    for damaged in (b"", state[:-1], state + b"\0"):
        with pytest.raises(FormatError, match="session"):
            Session.from_bytes(damaged)
    fields = msgspec.msgpack.decode(state)
    for at, value, problem in (
        (0, 2, "session"),
        (4, b"x", "wrong length"),
        (5, b"x", "wrong length"),
        (5, b"", "half a handshake"),
        (6, b"", "half a handshake"),
        (7, b"", "ratchet"),
    ):
        with pytest.raises(FormatError, match=problem):
            Session.from_bytes(msgspec.msgpack.encode([*fields[:at], value, *fields[at + 1 :]]))


def test_failed_encryption_moves_nothing() -> None:
    a, _ = pair()
    before = a.to_bytes()
    with pytest.raises(FormatError, match="content"):
        a.encrypt(bytes(70_000), envelope_id(1))
    with pytest.raises(FormatError, match="envelope id"):
        a.encrypt(b"m", b"")
    assert a.to_bytes() == before


def test_repr_shows_devices_and_counters_only() -> None:
    a, _ = pair()
    assert repr(a) == (
        f"Session(own_device={a.own_device.hex()}, peer_device={a.peer_device.hex()}, replied=True, "
        "ratchet=Ratchet(n_send=1, n_receive=1, previous_n=0, skipped=0, keys=<redacted>))"
    )


def test_stolen_disk_after_the_first_reply_opens_no_first_message() -> None:
    """C3, with a one-time prekey: everything that the recipient holds afterwards does not open the first body."""
    _, ben, a = begun()
    body = send(a, 0)
    b = ben.accept(body, 0).session
    send(b, 1)
    with pytest.raises(DecryptionError):
        opens(Session.from_bytes(b.to_bytes(), SeededEntropy("thief")), body, 0)
    assert body[:16] not in ben.ring
