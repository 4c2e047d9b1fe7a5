"""The sessions of a device with other devices, as sealed rows and in memory (protocol.md sections 4.1 to 4.3).

keys/ has the cryptography of one session, of a set, and the index by hints; this module keeps them durable. Each
session is a row of its own, named by peer and EK; the order of a peer's sessions is another. Rules:

* a peer is an account *and* a device key: a list shows that its account wants the device, not that the device wants the
  account, so that two accounts may name one device key. What opens in a session is said by the account whose list the
  session began with, and by nobody else who names the device;
* whatever moves a session writes its row in the same step; a step that fails makes the caller load everything again;
* a first message is accepted only from a device that its account's newest known list names, under the account key that
  is pinned; it pins no account itself, as anybody can seal a list of anybody's account (client/first_contacts.py);
* after mail that no session opened, and after a home was restored from a copy, sessions are *stale*: what arrives is
  still opened, but the next message to that device starts a new session.
"""

from dataclasses import dataclass

from client.errors import Alarm, ListRolledBack
from client.pins import PinnedAccount, Pins
from client.prekey_rows import put_ring
from client.store import Kind, Step, Store
from client.surroundings import Surroundings
from keys.errors import SenderRefused
from keys.handshake import Inbound
from keys.hints import HintIndex
from keys.identity import DeviceKeys
from keys.message import Opening
from keys.prekeys import PrekeyRing
from keys.session import Session, opening_of_first
from keys.session_set import SessionSet
from wire.codec import Key, Record, decode, encode
from wire.errors import BlindpostError
from wire.hashing import KeyRole, hash32, typed
from wire.identity import Account, DeviceEntry, SignedList
from wire.limits import CHUNK_BYTES_MIN, CHUNK_BYTES_STEP, HINT_SEARCH_MAX, KEY_BYTES
from wire.prekeys import Bundle

__all__ = ["ContactUnknown", "Opened", "Sessions", "Unopened", "has_chunk_length"]

_Ref = tuple[bytes, bytes]
_CHUNK_OVERHEAD_BYTES = 88
# What looks like mail of a session and does not open may be anybody's junk: the EK of first bodies is no secret.
_STALE_EVERY_S = 3_600


class _Order(Record, frozen=True):
    """The peer's sessions, the one to send on last; `stale`: begin a new one for the next message."""

    account: Account
    device_key: Key
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


class ContactUnknown(Exception):
    """A first message of an account that is not pinned; nothing has moved.

    Args:
        account: what its sealed list is of; nobody has confirmed it.
        account_key: the key that signed that list.
    """

    def __init__(self, account: str, account_key: bytes) -> None:
        self.account = account
        self.account_key = account_key
        super().__init__(f"{account} is not known here")


def _peer_name(account: str, device_key: bytes) -> bytes:
    """What names a peer in rows and references: 32 bytes, whatever the account's length."""
    return hash32("session-peer", typed(KeyRole.DEVICE, device_key) + account.encode("ascii"))


def has_chunk_length(body_bytes: int) -> bool:
    """Whether a body of that length is a chunk: no ordinary or first body has such a length (section 4.4)."""
    chunk_bytes = body_bytes - _CHUNK_OVERHEAD_BYTES
    return chunk_bytes >= CHUNK_BYTES_MIN and chunk_bytes % CHUNK_BYTES_STEP == 0


class Sessions:
    """All sessions of a device.

    Args:
        store: where the rows of sessions are.
        keys: the device's keys.
        ring: its prekeys; None where the home has none.
        pins: the accounts that it believes.
        surroundings: clock and randomness.
    """

    def __init__(
        self, store: Store, keys: DeviceKeys, ring: PrekeyRing | None, pins: Pins, surroundings: Surroundings
    ) -> None:
        self._store = store
        self._keys = keys
        self._ring = ring
        self._pins = pins
        self._surroundings = surroundings
        self._sets: dict[bytes, SessionSet] = {}
        self._peers: dict[bytes, tuple[str, bytes]] = {}
        self._stale: set[bytes] = set()
        self._failed_s: dict[bytes, int] = {}
        self._index: HintIndex[_Ref] = HintIndex()
        self.accepted_count = 0
        self._load()

    def __repr__(self) -> str:
        return f"Sessions(peers={len(self._sets)})"

    def _load(self) -> None:
        rows = dict(self._store.items(Kind.SESSION))
        for name, value in rows.items():
            if len(name) != KEY_BYTES:
                continue
            order = decode(_Order, value, "session order")
            peer = self._set_of(order.account, order.device_key)
            for ephemeral in order.ephemerals:
                session = Session.from_bytes(rows[name + ephemeral], self._surroundings.random)
                peer.received(session)
                self._index.add((name, ephemeral), session)
            if order.stale:
                self._stale.add(name)

    def _set_of(self, account: str, device_key: bytes) -> SessionSet:
        name = _peer_name(account, device_key)
        self._peers[name] = (account, device_key)
        return self._sets.setdefault(name, SessionSet())

    # Sending

    def can_send(self, account: str, device_key: bytes) -> bool:
        """Whether there is a session to send on; else `initiate` first."""
        name = _peer_name(account, device_key)
        return bool(self._sets.get(name)) and name not in self._stale

    def initiate(self, step: Step, own_list: SignedList, account: str, entry: DeviceEntry, bundle: Bundle) -> None:
        """Begin a session with a device of an account's verified list, by a bundle whose signatures are verified.

        The own account's newest list goes with the first message.

        Raises:
            HandshakeError: no session can begin with this bundle; nothing has moved.
        """
        session = Session.initiate(self._keys, own_list, entry, bundle, self._surroundings.random)
        name = _peer_name(account, entry.device_key)
        dropped = self._set_of(account, entry.device_key).began(session)
        self._stale.discard(name)
        self._index.add((name, session.ephemeral), session)
        self._put(step, name, session, dropped)
        self._put_order(step, name)

    def encrypt(self, step: Step, account: str, device_key: bytes, content: bytes, envelope_id: bytes) -> bytes:
        """The body of a content for a device of an account; the moved session is part of the step."""
        name = _peer_name(account, device_key)
        session = self._sets[name].sending
        assert session is not None, "can_send was asked before"
        body = session.encrypt(content, envelope_id)
        self._put(step, name, session, ())
        return body

    # Receiving

    def open(self, step: Step, body: bytes, envelope_id: bytes) -> Opened:
        """Open a body; all that moved is part of the step.

        Raises:
            Unopened: no session opens it; nothing has moved.
            ContactUnknown: it would begin a session with an account that is not pinned; nothing has moved.
            Alarm: it would begin a session, but its sender's list is not to be believed; nothing has moved.
        """
        ref = self._index.find(body)
        if ref is None and self._ring is not None and body[:16] in self._ring:
            return self._accept(step, body, envelope_id)
        if ref is None and not has_chunk_length(len(body)):
            ref = self._index.search(body, self._all(), HINT_SEARCH_MAX)
        if ref is None:
            raise Unopened(None)
        account, device_key = self._peers[ref[0]]
        known = self._pins.get(account)
        if known is None or known.devices.entry_of(device_key) is None:
            raise Unopened(SenderRefused("the device is not on its account's newest list any more"))
        session = self._sets[ref[0]][ref[1]]
        try:
            content = session.decrypt(body, envelope_id, self._surroundings.now_s)
        except BlindpostError as error:
            self._failed(step, ref[0])
            raise Unopened(error) from None
        self._received(step, ref[0], session, body)
        return Opened(account, device_key, content)

    def knows(self, head: bytes) -> bool:
        """Whether a body that begins like this is of a session that is known by now."""
        return self._index.find(head) is not None

    def _all(self) -> list[tuple[_Ref, Session]]:
        return [((name, session.ephemeral), session) for name, peer in self._sets.items() for session in peer]

    def _accept(self, step: Step, body: bytes, envelope_id: bytes) -> Opened:
        assert self._ring is not None
        try:
            accepted = Session.accept(
                self._keys,
                self._ring,
                body,
                envelope_id,
                self._surroundings.now_s,
                check_sender=self._check_sender,
                entropy=self._surroundings.random,
            )
        except Alarm:
            raise
        except BlindpostError as error:
            raise Unopened(error) from None
        self.accepted_count += 1
        inbound, session = accepted.inbound, accepted.session
        fresh = self._fresh_pin(inbound)
        if fresh is not None:
            self._pins.adopt(step, fresh, self._surroundings.now_s)
        account, device_key = inbound.sender_list.account, inbound.sender_device
        name = _peer_name(account, device_key)
        dropped = self._set_of(account, device_key).received(session)
        self._stale.discard(name)
        self._index.add((name, session.ephemeral), session)
        self._put(step, name, session, dropped)
        self._put_order(step, name)
        put_ring(step, self._ring)
        return Opened(account, device_key, accepted.content)

    def _check_sender(self, inbound: Inbound) -> None:
        """Called by keys/ before anything moves."""
        self._fresh_pin(inbound)
        known = self._pins.get(inbound.sender_list.account)
        if known is None:
            raise ContactUnknown(inbound.sender_list.account, inbound.sender_list.account_key)
        if known.devices.version < inbound.sender_list.version:
            return
        if known.devices.entry_of(inbound.sender_device) is None:
            raise SenderRefused("the device is not on its account's newest list")

    def _fresh_pin(self, inbound: Inbound) -> PinnedAccount | None:
        try:
            return self._pins.check(inbound.sender_signed_list, inbound.sender_list.account)
        except ListRolledBack:
            # Not an attack here: a first message repeats the list of the day on which its session began. It teaches
            # nothing, and `_check_sender` asks whether the device is still on the newest list.
            return None

    def _received(self, step: Step, name: bytes, session: Session, body: bytes) -> None:
        peer = self._sets[name]
        before = peer.order
        dropped = peer.received(session)
        self._index.received((name, session.ephemeral), session, body)
        self._put(step, name, session, dropped)
        if peer.order != before:
            self._put_order(step, name)

    # Volunteering: nothing moves

    def opening_of(self, body: bytes, envelope_id: bytes) -> Opening | None:
        """What opens this body and nothing else, if a session or a first message of ours does; no state moves."""
        ref = self._index.find(body)
        try:
            if ref is None and self._ring is not None and body[:16] in self._ring:
                return opening_of_first(self._keys, self._ring, body, envelope_id, self._surroundings.now_s)
            if ref is None:
                ref = self._index.search(body, self._all(), HINT_SEARCH_MAX)
            if ref is None:
                return None
            return self._sets[ref[0]][ref[1]].message_key_of(body, envelope_id, self._surroundings.now_s)
        except BlindpostError:
            return None

    # Ends

    def _mark_stale(self, step: Step, name: bytes) -> None:
        """Begin a new session for the next message to this peer."""
        if name not in self._stale:
            self._stale.add(name)
            self._put_order(step, name)

    def _failed(self, step: Step, name: bytes) -> None:
        """A body that names a session does not open in it: the two states may have parted. At most once an hour."""
        now_s = self._surroundings.now_s
        if now_s - self._failed_s.get(name, -_STALE_EVERY_S) >= _STALE_EVERY_S:
            self._failed_s[name] = now_s
            self._mark_stale(step, name)

    def mark_all_stale(self, step: Step) -> set[str]:
        """Begin new sessions with every peer: which one could not be opened is not known. Returns their accounts."""
        for name in self._sets:
            self._mark_stale(step, name)
        return {self._peers[name][0] for name in self._sets}

    def drop(self, step: Step, account: str, device_keys: set[bytes]) -> None:
        """Forget every session with these devices of an account: they left its list."""
        for name in {_peer_name(account, device_key) for device_key in device_keys} & set(self._sets):
            for ephemeral in self._sets.pop(name).order:
                self._index.remove((name, ephemeral))
                step.delete(Kind.SESSION, name + ephemeral)
            del self._peers[name]
            self._failed_s.pop(name, None)
            self._stale.discard(name)
            step.delete(Kind.SESSION, name)

    def sweep(self, step: Step) -> None:
        """Erase skipped keys whose time is over."""
        for name, peer in self._sets.items():
            for session in peer:
                if session.ratchet.expire(self._surroundings.now_s):
                    self._put(step, name, session, ())

    def all_sessions(self) -> list[Session]:
        """Every session, for client/volunteer.py."""
        return [session for peer in self._sets.values() for session in peer]

    def _put(self, step: Step, name: bytes, session: Session, dropped: tuple[Session, ...]) -> None:
        step.put(Kind.SESSION, name + session.ephemeral, session.to_bytes())
        for old in dropped:
            self._index.remove((name, old.ephemeral))
            step.delete(Kind.SESSION, name + old.ephemeral)

    def _put_order(self, step: Step, name: bytes) -> None:
        order = _Order(*self._peers[name], self._sets[name].order, name in self._stale)
        step.put(Kind.SESSION, name, encode(order))
