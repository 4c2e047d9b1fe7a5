"""The hint index: the session of a body by one look-up (protocol.md sections 4.2 and 4.3)."""

import pytest

from keys.hints import HintIndex
from keys.session import Session
from tests.keys.people import NOW_S, Person, envelope_id, pair
from wire.limits import HINT_SEARCH_MAX, SKIPPED_KEYS_S


def send(session: Session, number: int) -> bytes:
    return session.encrypt(b"m", envelope_id(number))


def receive(index: HintIndex[str], session: Session, body: bytes, number: int) -> None:
    assert session.decrypt(body, envelope_id(number), NOW_S) == b"m"
    index.received("b", session, body)


@pytest.fixture
def indexed() -> tuple[Session, Session, HintIndex[str]]:
    """a sends, b receives and has its session in the index."""
    a, b = pair()
    index: HintIndex[str] = HintIndex()
    index.add("b", b)
    return a, b, index


Indexed = tuple[Session, Session, HintIndex[str]]


def test_next_64_of_the_current_and_8_of_the_next_header_key_are_found(indexed: Indexed) -> None:
    a, b, index = indexed
    # b has sent, so that a turns: 8 hints of the next header key, no more.
    ahead = [send(a, number) for number in range(80)]
    assert [index.find(body) for body in ahead[:8]] == ["b"] * 8
    assert index.find(ahead[8]) is None
    receive(index, b, ahead[0], 0)
    assert [index.find(body) for body in ahead[1:65]] == ["b"] * 64
    assert index.find(ahead[70]) is None


def test_index_follows_a_long_chain_and_forgets_what_was_opened(indexed: Indexed) -> None:
    a, b, index = indexed
    size = len(index._by_hint)
    for number in range(300):
        body = send(a, number)
        assert index.find(body) == "b"
        receive(index, b, body, number)
        assert index.find(body) is None
    assert len(index._by_hint) <= size + 64 + 8


def test_late_messages_are_found_until_they_come(indexed: Indexed) -> None:
    a, b, index = indexed
    bodies = [send(a, number) for number in range(40)]
    receive(index, b, bodies[0], 0)
    receive(index, b, bodies[39], 39)
    assert [index.find(body) for body in bodies[1:39]] == ["b"] * 38
    for number in (38, 1, 20):
        receive(index, b, bodies[number], number)
        assert index.find(bodies[number]) is None


def test_late_messages_are_found_after_a_turn(indexed: Indexed) -> None:
    a, b, index = indexed
    old = [send(a, number) for number in range(4)]
    receive(index, b, old[0], 0)
    assert a.decrypt(send(b, 50), envelope_id(50), NOW_S) == b"m"
    new = send(a, 51)
    assert index.find(new) == "b"
    receive(index, b, new, 51)
    assert [index.find(body) for body in old[1:]] == ["b"] * 3
    receive(index, b, old[2], 2)
    assert [index.find(body) for body in old[1:]] == ["b", None, "b"]


def test_turns_do_not_let_the_index_grow(indexed: Indexed) -> None:
    a, b, index = indexed
    for number in range(0, 60, 2):
        body = send(a, number)
        assert index.find(body) == "b"
        receive(index, b, body, number)
        a.decrypt(send(b, number + 1), envelope_id(number + 1), NOW_S)
    assert len(index._by_hint) <= 64 + 8 + 8


def test_hints_of_skipped_messages_that_expired_leave_the_index_at_the_next_turn(indexed: Indexed) -> None:
    a, b, index = indexed
    lost = [send(a, number) for number in range(3)]
    receive(index, b, send(a, 3), 3)
    late = send(a, 4)
    receive(index, b, send(a, 5), 5)
    assert [index.find(body) for body in (*lost, late)] == ["b"] * 4
    week_s = NOW_S + SKIPPED_KEYS_S + 1
    a.decrypt(send(b, 6), envelope_id(6), week_s)
    turning = send(a, 7)
    assert b.decrypt(turning, envelope_id(7), week_s) == b"m"
    index.received("b", b, turning)
    assert [index.find(body) for body in (*lost, late)] == [None] * 4


def test_search_finds_what_is_further_ahead_in_the_chain(indexed: Indexed) -> None:
    a, b, index = indexed
    bodies = [send(a, number) for number in range(1_000)]
    receive(index, b, bodies[0], 0)
    assert index.find(bodies[-1]) is None
    assert index.search(bodies[-1], [("b", b)]) == "b"
    receive(index, b, bodies[-1], 999)
    assert all(index.find(body) == "b" for body in bodies[1:-1])


def test_search_finds_what_is_further_ahead_in_the_next_chain(indexed: Indexed) -> None:
    a, b, index = indexed
    bodies = [send(a, number) for number in range(1_000)]
    assert index.find(bodies[999]) is None
    assert index.search(bodies[999], [("b", b)]) == "b"


def test_search_keeps_its_budget(indexed: Indexed, monkeypatch: pytest.MonkeyPatch) -> None:
    a, b, index = indexed
    from keys import hints

    computed: list[int] = []

    def counted(header_key: bytes, block: int) -> bytes:
        computed.append(block)
        return bytes(64)

    monkeypatch.setattr(hints, "hint_block", counted)
    assert index.search(bytes([1]) * 400, [("a", a), ("b", b)] * 50) is None
    assert len(computed) == HINT_SEARCH_MAX // 4
    computed.clear()
    assert index.search(bytes([1]) * 400, [("a", a)], hints_max=40) is None
    assert len(computed) == 10
    assert index.search(bytes([1]) * 400, []) is None


def test_search_beyond_the_gap_finds_nothing(indexed: Indexed) -> None:
    a, b, index = indexed
    first = send(a, 0)
    receive(index, b, first, 0)
    bodies = [send(a, number) for number in range(1_100)]
    assert index.search(bodies[-1], [("b", b)], hints_max=10_000) is None


def test_junk_finds_nothing(indexed: Indexed) -> None:
    assert indexed[2].find(bytes(400)) is None
    assert indexed[2].find(b"") is None


def test_first_bodies_are_found_by_their_ephemeral_key() -> None:
    ana, ben = Person.make("ana"), Person.make("ben")
    a = ana.initiate(ben)
    bodies = [send(a, number) for number in range(3)]
    index: HintIndex[str] = HintIndex()
    assert index.find(bodies[0]) is None
    b = ben.accept(bodies[0], 0).session
    index.add("b", b)
    assert [index.find(body) for body in bodies] == ["b"] * 3
    receive(index, b, bodies[2], 2)
    assert index.find(bodies[1]) == "b"
    receive(index, b, bodies[1], 1)
    index.remove("b")
    assert index.find(bodies[0]) is None
    assert len(index._by_hint) == 0


def test_initiator_finds_the_reply() -> None:
    ana, ben = Person.make("ana"), Person.make("ben")
    a = ana.initiate(ben)
    index: HintIndex[str] = HintIndex()
    index.add("a", a)
    b = ben.accept(send(a, 1), 1).session
    assert index.find(send(b, 2)) == "a"


def test_many_sessions_do_not_disturb_each_other() -> None:
    index: HintIndex[int] = HintIndex()
    ben = Person.make("ben", one_time=0)
    sessions = {}
    for number in range(20):
        a = Person.make(f"ana{number}").initiate(ben, one_time=False)
        b = ben.accept(send(a, number), number).session
        a.decrypt(send(b, number), envelope_id(number), NOW_S)
        index.add(number, b)
        sessions[number] = (a, b)
    assert len(index) == 20
    assert repr(index).startswith("HintIndex(sessions=20, hints=")
    for number, (a, _) in sessions.items():
        assert index.find(send(a, 100)) == number
    index.remove(7)
    index.remove(7)
    assert index.find(send(sessions[7][0], 101)) is None
    assert index.find(send(sessions[8][0], 101)) == 8


def test_index_built_again_from_storage_knows_the_same(indexed: Indexed) -> None:
    a, b, index = indexed
    bodies = [send(a, number) for number in range(30)]
    receive(index, b, bodies[3], 3)
    receive(index, b, bodies[9], 9)
    again: HintIndex[str] = HintIndex()
    again.add("b", Session.from_bytes(b.to_bytes()))
    assert [again.find(body) for body in bodies] == [index.find(body) for body in bodies]
