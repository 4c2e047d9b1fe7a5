"""The sessions of a device with other devices, as sealed rows and in memory (protocol.md sections 4.1 to 4.3).

keys/ has the cryptography of one session, of a set, and the index by hints; this module keeps them durable. Each
session is a row of its own, named by peer device and EK; the order of a peer's sessions is another. Rules:

* whatever moves a session writes its row in the same step; a step that fails makes the caller load everything again;
* a first message is accepted only from a device that its account's newest known list names, under the account key that
  is pinned (or pinned now, at first contact);
* after mail that no session opened, and after a home was restored from a copy, sessions are *stale*: what arrives is
  still opened, but the next message to that device starts a new session.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from client.errors import Alarm, ListRolledBack
from client.pins import PinnedAccount
from client.store import Kind, Step
from keys.errors import SenderRefused
from keys.handshake import Inbound
from keys.hints import HintIndex
from keys.message import Opening
from keys.session import Session, opening_of_first
from keys.session_set import SessionSet
from wire.codec import Key, Record, decode, encode
from wire.errors import BlindpostError
from wire.identity import DeviceEntry
from wire.limits import CHUNK_BYTES_MIN, CHUNK_BYTES_STEP, HINT_SEARCH_MAX, KEY_BYTES
from wire.prekeys import Bundle

if TYPE_CHECKING:
    from client.state import State

__all__ = ["Opened", "Sessions", "Unopened", "has_chunk_length"]

_Ref = tuple[bytes, bytes]
_CHUNK_OVERHEAD_BYTES = 88


class _Order(Record, frozen=True):
    """The peer's sessions, the one to send on last; `stale`: begin a new one for the next message."""

    ephemerals: tuple[Key, ...]
    stale: bool


@dataclass(frozen=True, slots=True)
class Opened:
    """A body that opened: who sent it, and the encoded content."""

    account: str
    device_key: bytes
    content: bytes

    def __repr__(self) -> str:
        return f"Opened(account={self.account!r}, content=<{len(self.content)} bytes>)"


class Unopened(Exception):
    """No session opens this body; nothing has moved.

    Args:
        why: the error that says why, or None where no session was found at all.
    """

    def __init__(self, why: BlindpostError | None) -> None:
        self.why = why
        super().__init__(str(why) if why else "no session for this hint")


def has_chunk_length(body_bytes: int) -> bool:
    """Whether a body of that length is a chunk: no ordinary or first body has such a length (section 4.4)."""
    chunk_bytes = body_bytes - _CHUNK_OVERHEAD_BYTES
    return chunk_bytes >= CHUNK_BYTES_MIN and chunk_bytes % CHUNK_BYTES_STEP == 0


class Sessions:
    """All sessions of a device.

    Args:
        state: the device's state, of which keys, prekeys and pins are used.
    """

    def __init__(self, state: "State") -> None:
        self._state = state
        self._sets: dict[bytes, SessionSet] = {}
        self._stale: set[bytes] = set()
        self._index: HintIndex[_Ref] = HintIndex()
        self.accepted_count = 0
        self._load()

    def __repr__(self) -> str:
        return f"Sessions(peers={len(self._sets)})"

    def _load(self) -> None:
        rows = dict(self._state.store.items(Kind.SESSION))
        for name, value in rows.items():
            if len(name) != KEY_BYTES:
                continue
            order = decode(_Order, value, "session order")
            peer = self._sets[name] = SessionSet()
            for ephemeral in order.ephemerals:
                session = Session.from_bytes(rows[name + ephemeral], self._state.random)
                peer.received(session)
                self._index.add((name, ephemeral), session)
            if order.stale:
                self._stale.add(name)

    # Sending

    def can_send(self, device_key: bytes) -> bool:
        """Whether there is a session to send on; else `initiate` first."""
        return bool(self._sets.get(device_key)) and device_key not in self._stale

    def initiate(self, step: Step, entry: DeviceEntry, bundle: Bundle) -> None:
        """Begin a session with a device of a verified list, by a bundle whose signatures are verified.

        Raises:
            HandshakeError: no session can begin with this bundle; nothing has moved.
        """
        session = Session.initiate(self._state.keys, self._state.own_list, entry, bundle, self._state.random)
        peer = self._sets.setdefault(entry.device_key, SessionSet())
        dropped = peer.began(session)
        self._stale.discard(entry.device_key)
        self._index.add((entry.device_key, session.ephemeral), session)
        self._put(step, session, dropped)
        self._put_order(step, entry.device_key)

    def encrypt(self, step: Step, device_key: bytes, content: bytes, envelope_id: bytes) -> bytes:
        """The body of a content for a device; the moved session is part of the step."""
        session = self._sets[device_key].sending
        assert session is not None, "can_send was asked before"
        body = session.encrypt(content, envelope_id)
        self._put(step, session, ())
        return body

    # Receiving

    def open(self, step: Step, body: bytes, envelope_id: bytes) -> Opened:
        """Open a body; all that moved is part of the step.

        Raises:
            Unopened: no session opens it; nothing has moved.
            Alarm: it would begin a session, but its sender's list is not to be believed; nothing has moved.
        """
        ref = self._index.find(body)
        if ref is None and self._state.ring is not None and body[:16] in self._state.ring:
            return self._accept(step, body, envelope_id)
        if ref is None and not has_chunk_length(len(body)):
            ref = self._index.search(body, self._all(), HINT_SEARCH_MAX)
        if ref is None:
            raise Unopened(None)
        account = self._state.pins.account_of(ref[0])
        if account is None:
            raise Unopened(SenderRefused("the device is on no list any more"))
        session = self._sets[ref[0]][ref[1]]
        try:
            content = session.decrypt(body, envelope_id, self._state.now_s)
        except BlindpostError as error:
            self.mark_stale(step, ref[0])
            raise Unopened(error) from None
        self._received(step, session, body)
        return Opened(account, ref[0], content)

    def knows(self, head: bytes) -> bool:
        """Whether a body that begins like this is of a session that is known by now."""
        return self._index.find(head) is not None

    def _all(self) -> list[tuple[_Ref, Session]]:
        return [
            ((device_key, session.ephemeral), session) for device_key, peer in self._sets.items() for session in peer
        ]

    def _accept(self, step: Step, body: bytes, envelope_id: bytes) -> Opened:
        state = self._state
        assert state.ring is not None
        try:
            accepted = Session.accept(
                state.keys,
                state.ring,
                body,
                envelope_id,
                state.now_s,
                check_sender=self._check_sender,
                entropy=state.random,
            )
        except Alarm:
            raise
        except BlindpostError as error:
            raise Unopened(error) from None
        self.accepted_count += 1
        inbound, session = accepted.inbound, accepted.session
        fresh = self._fresh_pin(inbound)
        if fresh is not None:
            state.pins.adopt(step, fresh, state.now_s)
        peer = self._sets.setdefault(inbound.sender_device, SessionSet())
        dropped = peer.received(session)
        self._stale.discard(inbound.sender_device)
        self._index.add((inbound.sender_device, session.ephemeral), session)
        self._put(step, session, dropped)
        self._put_order(step, inbound.sender_device)
        state.put_ring(step)
        return Opened(inbound.sender_list.account, inbound.sender_device, accepted.content)

    def _check_sender(self, inbound: Inbound) -> None:
        """Called by keys/ before anything moves."""
        self._fresh_pin(inbound)
        known = self._state.pins.get(inbound.sender_list.account)
        if known is None or known.devices.version < inbound.sender_list.version:
            return
        if known.devices.entry_of(inbound.sender_device) is None:
            raise SenderRefused("the device is not on its account's newest list")

    def _fresh_pin(self, inbound: Inbound) -> PinnedAccount | None:
        try:
            return self._state.pins.check(inbound.sender_signed_list, inbound.sender_list.account)
        except ListRolledBack:
            # Not an attack here: a first message repeats the list of the day on which its session began. It teaches
            # nothing, and `_check_sender` asks whether the device is still on the newest list.
            return None

    def _received(self, step: Step, session: Session, body: bytes) -> None:
        peer = self._sets[session.peer_device]
        before = peer.order
        dropped = peer.received(session)
        self._index.received((session.peer_device, session.ephemeral), session, body)
        self._put(step, session, dropped)
        if peer.order != before:
            self._put_order(step, session.peer_device)

    # Volunteering: nothing moves

    def opening_of(self, body: bytes, envelope_id: bytes) -> Opening | None:
        """What opens this body and nothing else, if a session or a first message of ours does; no state moves."""
        ref = self._index.find(body)
        try:
            if ref is None and self._state.ring is not None and body[:16] in self._state.ring:
                return opening_of_first(self._state.keys, self._state.ring, body, envelope_id, self._state.now_s)
            if ref is None:
                ref = self._index.search(body, self._all(), HINT_SEARCH_MAX)
            if ref is None:
                return None
            return self._sets[ref[0]][ref[1]].message_key_of(body, envelope_id, self._state.now_s)
        except BlindpostError:
            return None

    # Ends

    def mark_stale(self, step: Step, device_key: bytes) -> None:
        """Begin a new session for the next message to this device."""
        if device_key in self._sets and device_key not in self._stale:
            self._stale.add(device_key)
            self._put_order(step, device_key)

    def mark_all_stale(self, step: Step) -> list[bytes]:
        """The same for every device: which one could not be opened is not known. Returns the devices."""
        for device_key in self._sets:
            self.mark_stale(step, device_key)
        return list(self._sets)

    def drop(self, step: Step, device_keys: set[bytes]) -> None:
        """Forget every session with these devices: they left their account's list."""
        for device_key in device_keys & set(self._sets):
            for ephemeral in self._sets.pop(device_key).order:
                self._index.remove((device_key, ephemeral))
                step.delete(Kind.SESSION, device_key + ephemeral)
            self._stale.discard(device_key)
            step.delete(Kind.SESSION, device_key)

    def sweep(self, step: Step) -> None:
        """Erase skipped keys whose time is over."""
        for peer in self._sets.values():
            for session in peer:
                if session.ratchet.expire(self._state.now_s):
                    self._put(step, session, ())

    def all_sessions(self) -> list[Session]:
        """Every session, for client/volunteer.py."""
        return [session for peer in self._sets.values() for session in peer]

    def _put(self, step: Step, session: Session, dropped: tuple[Session, ...]) -> None:
        step.put(Kind.SESSION, session.peer_device + session.ephemeral, session.to_bytes())
        for old in dropped:
            self._index.remove((old.peer_device, old.ephemeral))
            step.delete(Kind.SESSION, old.peer_device + old.ephemeral)

    def _put_order(self, step: Step, device_key: bytes) -> None:
        order = _Order(self._sets[device_key].order, device_key in self._stale)
        step.put(Kind.SESSION, device_key, encode(order))
