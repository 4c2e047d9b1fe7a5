"""Whom a device believes: account keys pinned at first contact, and device lists that only move forward.

Every list comes from the relay or from a peer, and neither is trusted (protocol.md section 2.2):

* the first list of an account pins its account key; it is `compared` only when people have compared safety numbers, and
  until there is a key log a false *first* key is caught by that alone;
* another account key afterwards is `AccountKeyChanged`; a lower version is `ListRolledBack`; the same version with
  other content, or a next version that does not name the one before, is `ListForked`. None of them changes anything;
* a device that the newest list does not name is nobody's: its sessions end.
"""

from collections.abc import Iterable

from client.errors import AccountKeyChanged, ListForked, ListRolledBack
from client.records import Pin
from client.store import Kind, Step, Store
from wire.codec import decode, encode
from wire.errors import FormatError
from wire.identity import DeviceEntry, DeviceList, SignedList, check_follows, list_hash, verify_signed_list

__all__ = ["PinnedAccount", "Pins"]


class PinnedAccount:
    """An account as this device knows it: its verified list, and the pin."""

    __slots__ = ("devices", "list_hash", "pin")

    def __init__(self, pin: Pin, devices: DeviceList) -> None:
        self.pin = pin
        self.devices = devices
        self.list_hash = list_hash(pin.signed_list)

    def __repr__(self) -> str:
        return f"PinnedAccount(account={self.devices.account!r}, version={self.devices.version})"

    @property
    def entries(self) -> tuple[DeviceEntry, ...]:
        """The devices of the newest list."""
        return self.devices.devices


class Pins:
    """All accounts that a device knows.

    Args:
        store: where pins are kept.
    """

    def __init__(self, store: Store) -> None:
        self._accounts: dict[str, PinnedAccount] = {}
        for _name, value in store.items(Kind.PIN):
            pin = decode(Pin, value, "pin")
            devices = verify_signed_list(pin.signed_list)
            self._accounts[devices.account] = PinnedAccount(pin, devices)

    def get(self, account: str) -> PinnedAccount | None:
        """What is known of an account, or None."""
        return self._accounts.get(account)

    def accounts(self) -> Iterable[PinnedAccount]:
        """Every account that is known."""
        return tuple(self._accounts.values())

    def check(self, signed: SignedList, account: str) -> PinnedAccount | None:
        """What is known of the account once this list is believed, or None where the list says nothing new.

        Changes nothing; `adopt` does.

        Args:
            signed: the list as it came.
            account: the account that it must be of.

        Raises:
            FormatError: not well formed, or of another account.
            SignatureError: its account key did not sign it.
            AccountKeyChanged: another account key than the pinned one.
            ListRolledBack: a lower version than the newest one seen.
            ListForked: it cannot be in one history with the newest one seen.
        """
        devices = verify_signed_list(signed)
        if devices.account != account:
            raise FormatError("device list", f"is of {devices.account}, not of {account}")
        known = self._accounts.get(account)
        if known is None:
            return PinnedAccount(Pin(devices.account_key, signed, 0, compared=False), devices)
        if devices.account_key != known.pin.account_key:
            raise AccountKeyChanged(account, known.pin.account_key, devices.account_key)
        if devices.version < known.devices.version:
            raise ListRolledBack(account, known.devices.version, devices.version)
        if devices.version == known.devices.version:
            if list_hash(signed) != known.list_hash:
                raise ListForked(account, devices.version)
            return None
        if devices.version == known.devices.version + 1:
            try:
                check_follows(devices, known.devices, known.list_hash)
            except FormatError:
                raise ListForked(account, devices.version) from None
        return PinnedAccount(Pin(known.pin.account_key, signed, known.pin.pinned_s, known.pin.compared), devices)

    def adopt(self, step: Step, fresh: PinnedAccount, now_s: int) -> PinnedAccount:
        """Believe what `check` returned, within a step; returns what is kept.

        Memory moves with the step; the caller reloads everything if the step fails.
        """
        pin = fresh.pin
        if pin.pinned_s == 0:
            pin = Pin(pin.account_key, pin.signed_list, now_s, pin.compared)
        kept = PinnedAccount(pin, fresh.devices)
        account = fresh.devices.account
        step.put(Kind.PIN, account.encode("ascii"), encode(pin))
        self._accounts[account] = kept
        return kept

    def mark_compared(self, step: Step, account: str) -> None:
        """People have compared the safety number of this account."""
        known = self._accounts[account]
        pin = Pin(known.pin.account_key, known.pin.signed_list, known.pin.pinned_s, compared=True)
        step.put(Kind.PIN, account.encode("ascii"), encode(pin))
        self._accounts[account] = PinnedAccount(pin, known.devices)

    def forget(self, step: Step, account: str) -> None:
        """Trust this account's next key on first contact again: the person has accepted that it changed."""
        step.delete(Kind.PIN, account.encode("ascii"))
        self._accounts.pop(account, None)
