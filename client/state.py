"""Everything that one device has in memory, loaded from its sealed rows (client/store.py), and loaded again after a
step that failed: memory is never trusted to match a store that refused to commit.

This module owns loading and the device's own rows. Sending is in client/outbox.py, receiving in client/inbox.py, and
the loop that drives both is client/engine.py.
"""

from dataclasses import dataclass

from client.errors import HomeInvalid, NotEnrolled
from client.evidence import Evidence
from client.notices import Notices
from client.pins import PinnedAccount, Pins
from client.prekey_rows import put_ring, read_ring
from client.records import AccountRow, DeviceRow, MetaRow
from client.sessions import Sessions
from client.store import Kind, Step, Store
from client.surroundings import Surroundings
from keys.identity import AccountKey, DeviceKeys
from wire.card import RelayCard
from wire.codec import decode, encode
from wire.errors import BlindpostError
from wire.identity import SignedList
from wire.rotation import RotationRecord

__all__ = ["Settings", "State", "Surroundings"]


@dataclass(frozen=True, slots=True)
class Settings:
    """How a device behaves; every number has its unit in its name."""

    expiry_s: int = 14 * 86_400
    """How long the relay keeps an envelope that nobody fetches; rounded up to a full hour, at most 30 days."""
    credit: int = 64
    """Envelopes of the mailbox that the relay may have under way."""
    delivered_kinds: frozenset[int] = frozenset({2, 3})
    """Kinds that are answered by a D notice by themselves: chat and ping. Add 1 for email."""
    unresolved_bytes_max: int = 64 * 1024 * 1024
    """Bodies kept for which there is no session or manifest yet; beyond, they are left to the relay."""
    reconnect_first_s: float = 0.5
    reconnect_last_s: float = 30.0
    keepalive_s: float = 15.0
    """How long the link may be silent before the device asks whether it still stands."""
    sweep_s: int = 3_600
    """How often rows whose time is over are erased."""
    window_bytes: int = 1_048_576
    """Bytes of submits that wait for receipts; the rest of the outbox stays on disk."""
    lookup_retry_s: float = 30.0
    """How long an account whose devices lack something (a bundle) waits for its next look-up."""


class State:
    """The loaded state of a device.

    Args:
        store: its open store.
        settings: how it behaves.
        surroundings: clock and randomness.

    Raises:
        HomeInvalid: the store holds no device.
    """

    def __init__(self, store: Store, settings: Settings, surroundings: Surroundings) -> None:
        self.store = store
        self.settings = settings
        self.random = surroundings.random
        self._surroundings = surroundings
        value = store.get(Kind.DEVICE, b"")
        if value is None:
            raise HomeInvalid("this home holds no device")
        self.device = decode(DeviceRow, value, "device row")
        self.keys = DeviceKeys.from_bytes(self.device.keys)
        self.card = RelayCard.from_toml(self.device.card)
        value = store.get(Kind.ACCOUNT, b"")
        self.account_key = (
            None if value is None else AccountKey.from_bytes(decode(AccountRow, value, "account row").key)
        )
        value = store.get(Kind.META, b"")
        self.meta = MetaRow((), 0) if value is None else decode(MetaRow, value, "meta row")
        self.ring = read_ring(store, self.keys, self.random)
        self.pins = Pins(store)
        self.sessions = Sessions(store, self.keys, self.ring, self.pins, surroundings)
        self.evidence = Evidence(store, self.card)
        self.evidence.rotations = self.rotations
        self.notices = Notices(store)
        self._orders = 0

    def __repr__(self) -> str:
        return f"State(account={self.device.account!r}, keys=<redacted>)"

    @property
    def now_s(self) -> int:
        """Unix time in whole seconds."""
        return self._surroundings.now_s

    @property
    def now_ms(self) -> int:
        """Unix time in whole milliseconds."""
        return self._surroundings.now_ms

    def next_order(self) -> int:
        """A number that grows with every row made, so that rows can be put in their order again."""
        self._orders = max(self._orders + 1, int(self._surroundings.now() * 1_000_000))
        return self._orders

    # The device itself

    @property
    def account(self) -> str:
        """The device's account.

        Raises:
            NotEnrolled: it has none yet.
        """
        if not self.device.account:
            raise NotEnrolled("this device has no account yet: its request has not been approved")
        return self.device.account

    @property
    def own(self) -> PinnedAccount:
        """The own account's pinned list.

        Raises:
            NotEnrolled: there is none yet.
        """
        known = self.pins.get(self.account)
        if known is None:
            raise NotEnrolled("this device has no device list yet")
        return known

    @property
    def own_list(self) -> SignedList:
        """The own account's newest signed list."""
        return self.own.pin.signed_list

    def put_device(self, step: Step, row: DeviceRow) -> None:
        """Change the device's own row within a step."""
        step.put(Kind.DEVICE, b"", encode(row))
        self.device = row

    def put_ring(self, step: Step) -> None:
        """Make the prekeys durable within a step."""
        put_ring(step, self.ring)

    # The relay's rotations

    @property
    def rotations(self) -> list[RotationRecord]:
        """The chain of the relay's rotations that was verified last."""
        return [decode(RotationRecord, record, "rotation") for record in self.meta.rotations]

    def put_meta(self, step: Step, meta: MetaRow) -> None:
        """Change the meta row within a step."""
        step.put(Kind.META, b"", encode(meta))
        self.meta = meta
        self.evidence.rotations = self.rotations

    # What the person must be told

    def put_notice(
        self, step: Step, error: BlindpostError, message_id: bytes = b"", accounts: tuple[str, ...] = ()
    ) -> None:
        """Keep an error that nobody may be waiting for."""
        self.notices.put(step, error, message_id, accounts, self.now_s)

    def put_notice_once(self, step: Step, error: BlindpostError, accounts: tuple[str, ...]) -> None:
        """Keep an error that a stranger can bring about at will: once until the person has been told."""
        self.notices.put_once(step, error, accounts, self.now_s)
