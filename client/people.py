"""Other people's accounts: looking them up, comparing safety numbers, accepting a new key (protocol.md section 2.2).

Whom to believe is decided by client/pins.py; here is what a person asks and decides. A key that has changed is accepted
by the person only.
"""

from client.errors import Unknown
from client.link import DirectoryEvent
from client.pins import PinnedAccount
from client.running import Running
from client.state import State
from keys.fingerprint import safety_number
from wire.commands import LookUp
from wire.identity import check_account

__all__ = ["look_up", "safety_number_of", "trust_new_key"]


async def look_up(running: Running, account: str, wait_s: float | None) -> PinnedAccount:
    """Ask the relay for an account's device list, check it, pin it at first contact.

    Raises:
        Refused: no such account, or this device may not ask.
        Alarm: the list is not to be believed.
        Unknown: no answer within `wait_s` seconds.
    """
    check_account(account)
    future = running.engine.ask(f"look up {account}", lambda ref: LookUp(ref, account, want_bundles=False))
    answer = await running.within(future, f"look up {account}", wait_s)
    assert isinstance(answer, DirectoryEvent), "a look-up is answered by a directory"
    outbox = running.engine.outbox
    if not outbox.on_list(account, answer.signed_list):
        blocked = outbox.blocked(account)
        assert blocked is not None, "a list that is not believed blocks its account"
        raise blocked
    known = running.state.pins.get(account)
    assert known is not None, "a list that is believed is pinned"
    return known


def safety_number_of(state: State, account: str) -> str:
    """The 60 digits to compare with that person, out of band.

    Raises:
        Unknown: nothing is known of that account yet.
    """
    known = state.pins.get(check_account(account))
    if known is None:
        raise Unknown(f"safety number of {account}", "this account was never looked up")
    return safety_number(state.account, state.own.pin.account_key, account, known.pin.account_key)


def trust_new_key(running: Running, account: str) -> None:
    """The person accepts that an account's key changed: old sessions end, the next is pinned, what waits is sent."""
    state = running.state
    known = state.pins.get(account)
    with running.store.step() as step:
        if known is not None:
            state.sessions.drop(step, account, {entry.device_key for entry in known.entries})
        state.pins.forget(step, account)
    running.engine.outbox.unblock(account)
    running.engine.inbox.resolve_all()
    running.engine.wake()
