"""How a device begins: the first rows of its home; and how it begins again where the home was restored or copied
(protocol.md sections 2.2 to 2.4).

    first device     own keys, the account key, version 1 of the account's list, the tenant's token, prekeys
    further device   own keys and prekeys; the account comes with the approval (client/own_devices.py)

Making and opening the folder is client/home.py's; telling the relay of it all is client/enrolment.py's.
"""

from pathlib import Path

from client.home import Fault, create_home
from client.outbox import put_renewals
from client.pins import Pins
from client.prekey_rows import put_upload
from client.records import AccountRow, DeviceRow
from client.state import State
from client.store import Kind, Store
from client.surroundings import Surroundings
from keys.identity import AccountKey, DeviceKeys
from keys.prekeys import PrekeyRing
from keys.vault import Cost
from wire.card import RelayCard
from wire.codec import encode
from wire.identity import Token, read_activation

__all__ = ["begin_again", "make_first", "make_further"]


def make_first(
    home: Path,
    card: RelayCard,
    token: Token,
    passphrase: bytes,
    surroundings: Surroundings,
    cost: Cost,
    fault: Fault | None,
) -> Store:
    """The home of an account's first device; returns its open store.

    Raises:
        FormatError: the token is malformed.
        HomeInvalid: the folder is a home already.
    """
    activation = read_activation(token)
    random = surroundings.random
    keys, account_key = DeviceKeys.generate(random), AccountKey.generate(random)
    signed = account_key.first_list(activation.account, [keys.entry])
    row = DeviceRow(card.to_toml(), keys.to_bytes(), activation.account, keys.mailbox, (token,), False, False)
    store = create_home(home, passphrase, random, cost, fault)
    now_s = surroundings.now_s
    ring, upload = PrekeyRing.generate(keys, now_s, entropy=random)
    with store.step() as step:
        step.put(Kind.DEVICE, b"", encode(row))
        step.put(Kind.ACCOUNT, b"", encode(AccountRow(account_key.to_bytes())))
        pins = Pins(store)
        fresh = pins.check(signed, activation.account)
        assert fresh is not None, "a first list is new"
        pins.adopt(step, fresh, now_s)
        put_upload(step, ring, upload)
    return store


def make_further(
    home: Path, card: RelayCard, passphrase: bytes, surroundings: Surroundings, cost: Cost, fault: Fault | None
) -> Store:
    """The home of a further device, not approved yet; returns its open store.

    Raises:
        HomeInvalid: the folder is a home already.
    """
    keys = DeviceKeys.generate(surroundings.random)
    row = DeviceRow(card.to_toml(), keys.to_bytes(), "", keys.mailbox, (), False, False)
    store = create_home(home, passphrase, surroundings.random, cost, fault)
    ring, upload = PrekeyRing.generate(keys, surroundings.now_s, entropy=surroundings.random)
    with store.step() as step:
        step.put(Kind.DEVICE, b"", encode(row))
        put_upload(step, ring, upload)
    return store


def begin_again(state: State) -> None:
    """The home was restored or copied: what another copy may have used is never used again here.

    Every session is stale, every peer gets a renewal, the prekeys are rotated. Load the state again afterwards.

    Raises:
        NotEnrolled: the device has no account, and so nothing that was used.
    """
    with state.store.step() as step:
        state.store.put_renewed(step)
        accounts = state.sessions.mark_all_stale(step) - {state.account}
        put_renewals(state, step, sorted(accounts))
        if state.ring is not None:
            put_upload(step, state.ring, state.ring.rotate(state.now_s))
