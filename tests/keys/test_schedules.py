"""Any schedule of loss, reorder, duplication, forgery and restart decrypts exactly what was sent, or fails closed.

Hypothesis drives two people over a network that it owns; the model is a list of what was sent. At each step must hold:

* a body that was never opened opens to its very content, whatever came before it (within the limits);
* a body that was opened, forged, or turned round opens nothing, and moves no state;
* the hint index of the receiver finds the session of each body that is under way;
* the state after storage and loading is the state.
"""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from keys.errors import DecryptionError, HandshakeError
from keys.hints import HintIndex
from keys.message import open_with_message_key
from keys.session import Session
from tests.keys.people import NOW_S, Person, envelope_id
from wire.errors import FormatError


class Side:
    def __init__(self, person: Person) -> None:
        self.person = person
        self.session: Session | None = None
        self.index: HintIndex[str] = HintIndex()
        self.under_way: list[tuple[int, bytes]] = []
        self.opened: list[tuple[int, bytes]] = []

    def state(self) -> tuple[bytes, bytes]:
        session = b"" if self.session is None else self.session.to_bytes()
        return session, self.person.ring.to_bytes()

    def open(self, body: bytes, number: int) -> bytes:
        if self.session is None:
            accepted = self.person.accept(body, number)
            self.session = accepted.session
            self.index.add("peer", accepted.session)
            return accepted.content
        content = self.session.decrypt(body, envelope_id(number), NOW_S)
        self.index.received("peer", self.session, body)
        return content


class Conversation(RuleBasedStateMachine):
    """Two sides, one of which begins; bodies lie in `under_way` of their receiver until a rule takes them."""

    @initialize(one_time=st.booleans())
    def begin(self, one_time: bool) -> None:
        self.a, self.b = Side(Person.make("ana")), Side(Person.make("ben"))
        self.a.session = self.a.person.initiate(self.b.person, one_time)
        self.a.index.add("peer", self.a.session)
        self.contents: dict[int, bytes] = {}

    def sides(self, to_b: bool) -> tuple[Side, Side]:
        return (self.a, self.b) if to_b else (self.b, self.a)

    @rule(to_b=st.booleans(), count=st.integers(1, 30), content=st.binary(max_size=300))
    def send(self, to_b: bool, count: int, content: bytes) -> None:
        sender, receiver = self.sides(to_b)
        if sender.session is None:
            return
        for _ in range(count):
            number = len(self.contents)
            self.contents[number] = content + b"%d" % number
            body = sender.session.encrypt(self.contents[number], envelope_id(number))
            receiver.under_way.append((number, body))

    @precondition(lambda self: self.a.under_way or self.b.under_way)
    @rule(to_b=st.booleans(), at=st.integers(0, 10_000))
    def deliver(self, to_b: bool, at: int) -> None:
        _, receiver = self.sides(to_b)
        if not receiver.under_way:
            return
        number, body = receiver.under_way.pop(at % len(receiver.under_way))
        if receiver.session is not None:
            found = receiver.index.find(body) or receiver.index.search(body, [("peer", receiver.session)])
            assert found == "peer"
            before = receiver.state()
            opening = receiver.session.message_key_of(body, envelope_id(number), NOW_S)
            assert open_with_message_key(body, envelope_id(number), opening) == self.contents[number]
            assert receiver.state() == before
        assert receiver.open(body, number) == self.contents[number]
        receiver.opened.append((number, body))

    @precondition(lambda self: self.a.under_way or self.b.under_way)
    @rule(to_b=st.booleans(), at=st.integers(0, 10_000))
    def lose(self, to_b: bool, at: int) -> None:
        _, receiver = self.sides(to_b)
        if receiver.under_way:
            receiver.under_way.pop(at % len(receiver.under_way))

    @precondition(lambda self: self.a.opened or self.b.opened)
    @rule(to_b=st.booleans(), at=st.integers(0, 10_000))
    def deliver_again(self, to_b: bool, at: int) -> None:
        _, receiver = self.sides(to_b)
        if receiver.opened:
            number, body = receiver.opened[at % len(receiver.opened)]
            self.must_not_open(receiver, body, number)

    @precondition(lambda self: self.a.under_way or self.b.under_way)
    @rule(to_b=st.booleans(), at=st.integers(0, 10_000), bit=st.integers(0, 10_000_000))
    def forge(self, to_b: bool, at: int, bit: int) -> None:
        _, receiver = self.sides(to_b)
        if not receiver.under_way:
            return
        number, body = receiver.under_way[at % len(receiver.under_way)]
        forged = bytearray(body)
        forged[bit // 8 % len(body)] ^= 1 << bit % 8
        self.must_not_open(receiver, bytes(forged), number)
        self.must_not_open(receiver, body, number + 1_000_000)

    @precondition(lambda self: self.a.under_way or self.b.under_way)
    @rule(to_b=st.booleans(), at=st.integers(0, 10_000))
    def turn_round(self, to_b: bool, at: int) -> None:
        sender, receiver = self.sides(to_b)
        if receiver.under_way and sender.session is not None:
            number, body = receiver.under_way[at % len(receiver.under_way)]
            self.must_not_open(sender, body, number)

    @rule(to_b=st.booleans())
    def restart(self, to_b: bool) -> None:
        _, side = self.sides(to_b)
        if side.session is not None:
            side.session = Session.from_bytes(side.session.to_bytes(), side.person.entropy)
            side.index = HintIndex()
            side.index.add("peer", side.session)

    def must_not_open(self, receiver: Side, body: bytes, number: int) -> None:
        before = receiver.state()
        with pytest.raises((DecryptionError, HandshakeError, FormatError)):
            receiver.open(body, number)
        assert receiver.state() == before

    @invariant()
    def state_survives_storage(self) -> None:
        for side in (getattr(self, "a", None), getattr(self, "b", None)):
            if side is not None and side.session is not None:
                state = side.session.to_bytes()
                assert Session.from_bytes(state).to_bytes() == state


TestConversation = Conversation.TestCase
TestConversation.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


def test_the_rules_reach_turns_skips_and_late_first_bodies() -> None:
    """A control of the machine: played by hand, its rules get to the rare states that it is meant to find."""
    machine = Conversation()
    machine.begin(one_time=True)
    machine.send(True, 5, b"first")
    machine.deliver(True, 3)
    machine.send(False, 2, b"reply")
    machine.deliver(False, 1)
    machine.send(True, 30, b"second chain")
    machine.deliver(True, 33)
    assert machine.b.session is not None
    assert len(machine.b.session.ratchet.skipped) == 4 + 29
    machine.restart(True)
    for _ in range(4):
        machine.deliver(True, 0)
    machine.deliver_again(True, 0)
    machine.forge(True, 0, 12_345)
    machine.turn_round(True, 0)
    machine.lose(True, 0)
    assert len(machine.b.session.ratchet.skipped) == 29
