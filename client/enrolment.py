"""How a device comes to be known: enrolment, further devices, device lists, prekeys (protocol.md sections 2.2 to 2.4).

    first device     a token and version 1 of the list, made by the account key, which stays here
    further device   request (public keys, signed by the device) ──▶ approve on the first device: the next list
                     ◀── approval (that list): pins the account; no private key travels

What is published is a sealed row until the relay has answered `done`, so that a crash publishes it again; the private
halves of prekeys are durable before the upload leaves. One-time prekeys are offered to the relay on one link only: what
it did not answer there it may have stored, handed out and, after a crash of its own, forgotten to have handed out. So
on the next link an unanswered upload goes with fresh ones, and one-time prekeys that were to be added are dropped; the
relay says how many are left. Private halves stay, as somebody may hold the public ones.
"""

import base64
import binascii
from collections.abc import Callable, Sequence
from typing import Final

from msgspec.structs import replace

from client.errors import ClientError, NotEnrolled, Refused
from client.link import Link, RefusedEvent, UpEvent
from client.prekey_rows import PUBLISH, put_upload
from client.state import State
from client.store import Kind
from keys.identity import DeviceKeys
from wire.codec import Id, Key, Record, Signature, decode, encode
from wire.commands import AddPrekeys, DeviceCommand, Enrol, PublishList, PublishPrekeys
from wire.errors import FormatError, RefusalCode
from wire.hashing import KeyRole, hash32, typed
from wire.identity import DeviceEntry, SignedList, Token
from wire.limits import DEVICES_PER_ACCOUNT_MAX, ONE_TIME_PREKEYS_LOW, ONE_TIME_PREKEYS_PER_UPLOAD_MAX
from wire.prekeys import Prekeys
from wire.signing import verify

__all__ = [
    "Enrolment",
    "approval_text",
    "read_approval",
    "read_request",
    "request_fingerprint",
    "request_text",
]

_REQUEST: Final = "blindpost-device-request-1"
_APPROVAL: Final = "blindpost-device-approval-1"
_FILE_CHARACTERS_MAX: Final = 8_192
_LABEL: Final = "device-request"
_RETRY_S: Final = 5.0

_LIST: Final = b"list"
_ADD: Final = b"add"


class _Request(Record, frozen=True):
    device_key: Key
    dh_key: Key
    mailbox: Id
    signature: Signature


# Files that people carry


def request_text(keys: DeviceKeys) -> str:
    """The request of a new device, one line: public keys, signed by the device key to show that it holds them."""
    signed = typed(KeyRole.DEVICE_IDENTITY, keys.dh_public) + keys.mailbox
    request = _Request(keys.public, keys.dh_public, keys.mailbox, keys.signing.sign(_LABEL, signed))
    return _line(_REQUEST, encode(request))


def read_request(text: str) -> DeviceEntry:
    """The device that a request is of.

    Raises:
        FormatError: not a request.
        SignatureError: the device key did not sign it.
    """
    request = decode(_Request, _unline(_REQUEST, text), "device request")
    signed = typed(KeyRole.DEVICE_IDENTITY, request.dh_key) + request.mailbox
    verify(request.device_key, _LABEL, signed, request.signature)
    return DeviceEntry(request.device_key, request.dh_key, request.mailbox)


def request_fingerprint(entry: DeviceEntry) -> str:
    """25 digits that the person compares on both screens before approving: a request could be swapped on its way."""
    digest = hash32("device-request-fingerprint", encode(entry))
    return " ".join(f"{int.from_bytes(digest[5 * i : 5 * i + 5], 'big') % 100_000:05}" for i in range(5))


def approval_text(signed: SignedList) -> str:
    """The approval, one line: the account's signed list that names the new device."""
    return _line(_APPROVAL, encode(signed))


def read_approval(text: str) -> SignedList:
    """The list that an approval carries, not verified yet.

    Raises:
        FormatError: not an approval.
    """
    return decode(SignedList, _unline(_APPROVAL, text), "device approval")


def _line(head: str, data: bytes) -> str:
    return f"{head} {base64.b64encode(data).decode('ascii')}\n"


def _unline(head: str, text: str) -> bytes:
    if len(text) > _FILE_CHARACTERS_MAX:
        raise FormatError(head, f"has {len(text)} characters", _FILE_CHARACTERS_MAX)
    found, _space, encoded = text.strip().partition(" ")
    if found != head:
        raise FormatError(head, "is another kind of file")
    try:
        return base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        raise FormatError(head, "is not base64") from None


class Enrolment:
    """What a device publishes of itself.

    Args:
        state: the device's state.
        link: where it is asked.
    """

    def __init__(self, state: State, link: Link) -> None:
        self._state = state
        self._link = link
        self._asked: dict[int, bytes] = {}
        self._retry_s: float | None = None
        self._left = ONE_TIME_PREKEYS_LOW
        self._accepted_count = state.sessions.accepted_count
        self.failure: ClientError | None = None

    def begin(self, event: UpEvent) -> None:
        """A link stands: enrol, or publish what has not been answered."""
        for ref in self._asked:
            # The link would repeat them as they are.
            self._link.settle(ref)
        self._asked.clear()
        mine = next((device for device in event.devices if device.device_key == self._state.keys.public), None)
        if mine is None:
            return
        self._told_left(mine.prekeys_left)
        if mine.enrolled:
            self._enrolled()
            self._refresh_upload()
        self._publish()

    def _refresh_upload(self) -> None:
        """Of an upload that was not answered on an older link the relay may have stored and handed out anything."""
        ring = self._state.ring
        if ring is not None and self._state.store.get(Kind.PREKEYS, PUBLISH) is not None:
            upload = ring.publish_again()
            with self._state.store.step() as step:
                put_upload(step, ring, upload)

    def _told_left(self, left: int) -> None:
        self._left = left
        self._accepted_count = self._state.sessions.accepted_count

    def _enrolled(self) -> None:
        self.failure = None
        if not self._state.device.enrolled:
            with self._state.store.step() as step:
                self._state.put_device(step, replace(self._state.device, enrolled=True, token=()))

    def _publish(self) -> None:
        state = self._state
        if not state.device.account or self.failure is not None:
            return
        if not state.device.enrolled and state.device.token:
            self._ask_enrol(state.device.token[0])
            return
        self._renew()
        value = state.store.get(Kind.META, _LIST)
        if value is not None:
            signed = decode(SignedList, value, "device list")
            self._ask(_LIST, lambda ref: PublishList(ref, signed))
        value = state.store.get(Kind.PREKEYS, PUBLISH)
        if value is not None:
            upload = decode(Prekeys, value, "prekeys")
            self._ask(PUBLISH, lambda ref: PublishPrekeys(ref, upload))

    def _ask_enrol(self, token: Token) -> None:
        state = self._state
        value = state.store.get(Kind.PREKEYS, PUBLISH)
        assert value is not None, "a device is made with its first upload"
        upload = decode(Prekeys, value, "prekeys")
        self._ask(b"enrol", lambda ref: Enrol(ref, token, state.own_list, upload))

    def _ask(self, what: bytes, command_of: Callable[[int], DeviceCommand]) -> None:
        if what not in self._asked.values():
            self._asked[self._link.ask(command_of)] = what

    def _renew(self) -> None:
        """Rotate or add prekeys when it is time; the private halves are durable first."""
        state, ring = self._state, self._state.ring
        if ring is None or not state.device.enrolled or state.store.get(Kind.PREKEYS, PUBLISH) is not None:
            return
        if ring.rotation_due(state.now_s):
            upload = ring.rotate(state.now_s)
            with state.store.step() as step:
                put_upload(step, ring, upload)
            return
        if _ADD not in self._asked.values() and self._left < ONE_TIME_PREKEYS_LOW:
            one_time = ring.replenish(max(0, self._left))
            self._left += len(one_time)
            with state.store.step() as step:
                state.put_ring(step)
            self._ask(_ADD, lambda ref: AddPrekeys(ref, one_time))

    # The account's list

    def next_list(self, entries: Sequence[DeviceEntry]) -> SignedList:
        """Sign and keep the account's next list; it is published from now on until the relay has it.

        Raises:
            NotEnrolled: the account key is not on this device.
            FormatError: the list would break a rule of section 2.2.
        """
        state = self._state
        if state.account_key is None:
            raise NotEnrolled("the account key is on the account's first device only")
        if len(entries) > DEVICES_PER_ACCOUNT_MAX:
            raise FormatError("devices", f"would be {len(entries)}", DEVICES_PER_ACCOUNT_MAX)
        signed = state.account_key.next_list(state.own_list, entries)
        fresh = state.pins.check(signed, state.account)
        assert fresh is not None, "a next version is new"
        with state.store.step() as step:
            gone = {entry.device_key for entry in state.own.entries} - {entry.device_key for entry in entries}
            state.sessions.drop(step, state.account, gone)
            state.pins.adopt(step, fresh, state.now_s)
            step.put(Kind.META, _LIST, encode(signed))
        self._publish()
        return signed

    @property
    def list_is_published(self) -> bool:
        """Whether the relay has answered for the newest list of this device's making."""
        return self._state.store.get(Kind.META, _LIST) is None

    # Answers

    def on_done(self, ref: int) -> bool:
        """A publication was answered; False if it was none of these."""
        what = self._asked.pop(ref, None)
        if what is None:
            return False
        if what in {b"enrol", PUBLISH}:
            self._told_left(ONE_TIME_PREKEYS_PER_UPLOAD_MAX)
        with self._state.store.step() as step:
            if what == b"enrol":
                step.delete(Kind.PREKEYS, PUBLISH)
                self._state.put_device(step, replace(self._state.device, enrolled=True, token=()))
            elif what == _LIST:
                step.delete(Kind.META, _LIST)
            elif what == PUBLISH:
                step.delete(Kind.PREKEYS, PUBLISH)
                if not self._state.device.enrolled:
                    self._state.put_device(step, replace(self._state.device, enrolled=True))
        self._publish()
        return True

    def on_refused(self, event: RefusedEvent, now_s: float) -> bool:
        """A publication was refused; False if it was none of these."""
        what = self._asked.pop(event.ref, None)
        if what is None:
            return False
        if event.code is RefusalCode.NOT_ENTITLED and what == PUBLISH:
            # The list that names this device may be published at any moment.
            self._retry_s = now_s + _RETRY_S
            return True
        error = Refused({b"enrol": "enrol"}.get(what, "publish " + what.decode()), event.code, event.field, event.limit)
        self.failure = error if what == b"enrol" else None
        with self._state.store.step() as step:
            self._state.put_notice(step, error)
            if what == _LIST:
                step.delete(Kind.META, _LIST)
        return True

    def tick(self, now_s: float) -> None:
        """Do what is due: publish again, add prekeys before they run out."""
        if self._left - self._taken() < ONE_TIME_PREKEYS_LOW and self._state.device.enrolled:
            self._left, self._accepted_count = self._left - self._taken(), self._state.sessions.accepted_count
            self._publish()
        if self._retry_s is not None and now_s >= self._retry_s:
            self._retry_s = None
            self._publish()

    def next_deadline_s(self) -> float | None:
        """When `tick` has something to do, in monotonic seconds."""
        return self._retry_s

    def _taken(self) -> int:
        """Prekeys used since the relay last told how many are left; those of look-ups without a message it tells."""
        return self._state.sessions.accepted_count - self._accepted_count

    def sweep(self) -> None:
        """Rotate when it is time."""
        if self._link.up:
            self._publish()
