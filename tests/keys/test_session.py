"""Sessions: from handshake to ratchet (protocol.md sections 4.1 to 4.3)."""

from tests.keys.people import NOW_S, envelope_id, pair


def test_first_session_carries_messages_both_ways() -> None:
    a, b = pair()
    for number in range(10, 40, 2):
        there, back = envelope_id(number), envelope_id(number + 1)
        assert b.decrypt(a.encrypt(b"there %d" % number, there), there, NOW_S) == b"there %d" % number
        assert a.decrypt(b.encrypt(b"back %d" % number, back), back, NOW_S) == b"back %d" % number


def test_session_without_one_time_prekey_carries_messages() -> None:
    a, b = pair(one_time=False)
    body = a.encrypt(b"still here", envelope_id(3))
    assert len(body) == 144 + 256
    assert b.decrypt(body, envelope_id(3), NOW_S) == b"still here"
