"""Both sides start at once (protocol.md section 4.3)."""

import pytest

from keys.errors import HandshakeError, HeaderUnknown
from keys.session import Session
from keys.session_set import SESSIONS_PER_PEER_MAX, SessionSet
from tests.keys.people import NOW_S, Person, envelope_id
from wire.errors import FormatError


class Side:
    """A person with a session set, who opens whatever comes as a client does."""

    def __init__(self, person: Person) -> None:
        self.person = person
        self.sessions = SessionSet()
        self.sent = 0

    def send(self, number: int) -> bytes:
        session = self.sessions.sending
        assert session is not None
        return session.encrypt(b"%d" % number, envelope_id(number))

    def receive(self, body: bytes, number: int) -> None:
        for session in self.sessions:
            try:
                assert session.decrypt(body, envelope_id(number), NOW_S) == b"%d" % number
            except HeaderUnknown:
                continue
            self.sessions.received(session)
            return
        accepted = self.person.accept(body, number)
        assert accepted.content == b"%d" % number
        self.sessions.received(accepted.session)


@pytest.fixture
def sides() -> tuple[Side, Side]:
    a, b = Side(Person.make("ana")), Side(Person.make("ben"))
    a.sessions.began(a.person.initiate(b.person))
    b.sessions.began(b.person.initiate(a.person))
    return a, b


def test_empty_set_has_no_session_to_send_on() -> None:
    assert SessionSet().sending is None
    assert len(SessionSet()) == 0


def test_both_start_at_once_and_keep_both_sessions(sides: tuple[Side, Side]) -> None:
    a, b = sides
    from_a, from_b = a.send(1), b.send(2)
    b.receive(from_a, 1)
    a.receive(from_b, 2)
    assert len(a.sessions) == len(b.sessions) == 2
    # Each sends on the one that it last received on: the other's.
    assert a.sessions.sending is not None
    assert a.sessions.sending.accepted
    assert b.sessions.sending is not None
    assert b.sessions.sending.accepted
    a.receive(b.send(3), 3)
    b.receive(a.send(4), 4)
    assert len(a.sessions) == len(b.sessions) == 2


def test_they_come_together_once_one_of_them_answers(sides: tuple[Side, Side]) -> None:
    a, b = sides
    from_a, from_b = a.send(1), b.send(2)
    b.receive(from_a, 1)
    a.receive(from_b, 2)
    for number in range(10, 20, 2):
        a.receive(b.send(number), number)
        b.receive(a.send(number + 1), number + 1)
    assert a.sessions.sending is not None
    assert b.sessions.sending is not None
    assert a.sessions.sending.ephemeral == b.sessions.sending.ephemeral


@pytest.mark.parametrize("order", ["abab", "aabb", "bbaa", "abba", "baab", "aaab", "bbba"])
def test_any_crossing_loses_nothing(sides: tuple[Side, Side], order: str) -> None:
    """Messages cross: each letter sends, and what was sent two steps before arrives."""
    a, b = sides
    under_way: list[tuple[Side, bytes, int]] = []
    for number, letter in enumerate(order * 3):
        sender, receiver = (a, b) if letter == "a" else (b, a)
        under_way.append((receiver, sender.send(number), number))
        if len(under_way) > 2:
            to, body, sent = under_way.pop(0)
            to.receive(body, sent)
    for to, body, sent in reversed(under_way):
        to.receive(body, sent)


def test_peer_who_began_again_is_answered_on_the_new_session(sides: tuple[Side, Side]) -> None:
    a, b = sides
    b.receive(a.send(1), 1)
    a.receive(b.send(2), 2)
    a.sessions = SessionSet()  # lost its state
    a.sessions.began(a.person.initiate(b.person, one_time=False))
    b.receive(a.send(3), 3)
    a.receive(b.send(4), 4)


def test_sessions_of_a_peer_are_bounded_and_the_oldest_dropped() -> None:
    ana, ben = Person.make("ana"), Person.make("ben")
    sessions = SessionSet()
    made = [ana.initiate(ben) for _ in range(SESSIONS_PER_PEER_MAX + 1)]
    dropped = [gone for session in made for gone in sessions.began(session)]
    assert dropped == made[:1]
    assert sessions.order == tuple(session.ephemeral for session in made[1:])
    assert sessions.sending is made[-1]
    assert sessions.received(made[3]) == ()
    assert sessions.sending is made[3]
    assert sessions.received(made[3]) == ()
    assert sessions[made[3].ephemeral] is made[3]
    sessions.remove(made[3].ephemeral)
    assert sessions.sending is made[-1]


def test_session_with_another_device_is_refused() -> None:
    ana, ben, cid = Person.make("ana"), Person.make("ben"), Person.make("cid")
    sessions = SessionSet()
    sessions.began(ana.initiate(ben))
    with pytest.raises(HandshakeError, match="session: is with another device"):
        sessions.began(ana.initiate(cid))


def test_set_survives_storage(sides: tuple[Side, Side]) -> None:
    a, b = sides
    b.receive(a.send(1), 1)
    again = SessionSet.from_bytes(b.sessions.to_bytes(), b.person.entropy)
    assert again.order == b.sessions.order
    assert again.to_bytes() == b.sessions.to_bytes()
    b.sessions = again
    a.receive(b.send(2), 2)
    with pytest.raises(FormatError):
        SessionSet.from_bytes(b"\x90")


def test_repr_shows_no_secret(sides: tuple[Side, Side]) -> None:
    session = next(iter(sides[0].sessions))
    assert isinstance(session, Session)
    assert repr(sides[0].sessions) == f"SessionSet([{session!r}])"
