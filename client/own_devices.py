"""The devices of an account: approving a further one, accepting the approval, removing one (protocol.md section 2.3).

    further device   request ──▶ approve on the first device: the account's next list, published
                     ◀── approval: accept pins the account

The files that people carry between the two are read and written by client/enrolment.py, which also publishes.
"""

import asyncio

from msgspec.structs import replace

from client.enrolment import approval_text, read_approval, read_request
from client.pins import Pins
from client.running import Running
from wire.errors import FormatError
from wire.identity import verify_signed_list

__all__ = ["accept", "approve", "remove"]


async def approve(running: Running, request: str, wait_s: float | None) -> str:
    """Certify a further device: publish the next list; returns the approval to carry back.

    Asked again for a device that is on the list already, it returns the same approval once more.

    Raises:
        FormatError, SignatureError: not a genuine request, or a device that is on the list in another form.
        NotEnrolled: the account key is not here.
        Unknown: the relay has not answered within `wait_s` seconds; the list is published when it does.
    """
    state = running.state
    entry = read_request(request)
    if state.own.devices.entry_of(entry.device_key) == entry:
        signed = state.own_list
    else:
        signed = running.engine.enrolment.next_list([*state.own.entries, entry])
    await _published(running, wait_s)
    return approval_text(signed)


async def remove(running: Running, device_key: bytes, wait_s: float | None) -> None:
    """Take a device off the account's list.

    Raises:
        FormatError: no such device, or this one.
        NotEnrolled: the account key is not here.
        Unknown: the relay has not answered within `wait_s` seconds.
    """
    state = running.state
    if device_key == state.keys.public:
        raise FormatError("device key", "is this device's own")
    rest = [entry for entry in state.own.entries if entry.device_key != device_key]
    if len(rest) == len(state.own.entries):
        raise FormatError("device key", "is on no device of this account")
    running.engine.enrolment.next_list(rest)
    await _published(running, wait_s)


async def _published(running: Running, wait_s: float | None) -> None:
    engine = running.engine
    engine.outbox.touch(running.state.account)
    engine.wake()
    await running.until(lambda: running.engine.enrolment.list_is_published, "publish device list", wait_s)


def accept(running: Running, approval: str) -> str:
    """Take the approval of this device: pins the account; returns it. A running loop connects anew and publishes.

    Raises:
        FormatError: not an approval, or of another device.
        SignatureError, Alarm: the list is not to be believed.
    """
    signed = read_approval(approval)
    state = running.state
    account = verify_signed_list(signed).account
    fresh = Pins(running.store).check(signed, account)
    if fresh is None or fresh.devices.entry_of(state.keys.public) != state.keys.entry:
        raise FormatError("device approval", "does not name this device and its keys")
    if state.device.account not in {"", account}:
        raise FormatError("device approval", "is of another account")
    with running.store.step() as step:
        state.pins.adopt(step, fresh, state.now_s)
        state.put_device(step, replace(state.device, account=account))
    if running.is_running:
        engine = running.engine
        engine.link.connect(asyncio.get_running_loop().time())
        engine.enrolment.sweep()
        engine.wake()
    return account
