"""Accounts and devices of a sized run: how each joins, and what a device list says.

Lists, activation tokens and prekeys are signed for real, since they are stored and the verifier checks them. X25519
and ML-KEM keys are random bytes of their length: nobody agrees on a secret with them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sim.engine.chance import generator
from sim.engine.population import Population
from wire.commands import DeviceCommand, Enrol, PublishPrekeys
from wire.identity import (
    NO_PREVIOUS,
    Activation,
    DeviceEntry,
    DeviceList,
    SignedList,
    device_tag,
    list_hash,
    sign_activation,
    sign_list,
    verify_signed_list,
)
from wire.limits import ID_BYTES, KEY_BYTES, ML_KEM_768_PUBLIC_BYTES
from wire.prekeys import (
    KemPrekey,
    OneTimePrekey,
    Prekeys,
    SignedPrekey,
    kem_prekey_signed_bytes,
    one_time_prekey_signed_bytes,
    signed_prekey_signed_bytes,
)
from wire.signing import SigningKey

if TYPE_CHECKING:
    from sim.engine.handset import Handset

__all__ = ["DeviceKeys", "Joining", "ListView", "People"]

_ONE_TIME_PREKEYS: Final = 1
_TOKEN_S: Final = 86_400
"""An activation token is good for a day; everybody joins in the first hour."""


@dataclass(frozen=True, slots=True)
class DeviceKeys:
    """What names a device; its secret seed is drawn again when it signs."""

    device_key: bytes
    dh_key: bytes
    mailbox: bytes
    tag: bytes

    @property
    def entry(self) -> DeviceEntry:
        """Its place on a list."""
        return DeviceEntry(self.device_key, self.dh_key, self.mailbox)


@dataclass(frozen=True, slots=True)
class ListView:
    """A verified device list, as senders use it."""

    person: int
    account: str
    account_key: bytes
    version: int
    list_hash: bytes
    entries: tuple[tuple[int, bytes], ...]
    """Number of each device, -1 for one that nobody of the run owns, and its mailbox."""


@dataclass(frozen=True, slots=True)
class Joining:
    """How a device makes the command by which it joins."""

    command: Callable[[int], DeviceCommand]


class People:
    """Everybody's keys and lists.

    Args:
        population: who there is.
        domains: of the companies, by number.
        seed: the run's.
        now_s: the time at which tokens are made out.
    """

    def __init__(self, population: Population, domains: list[str], seed: int, now_s: int) -> None:
        self._seed = seed
        self._now_s = now_s
        self._population = population
        self._admins = [SigningKey(generator(seed, f"admin/{domain}").randbytes(KEY_BYTES)) for domain in domains]
        self.admin_keys = [(domain, admin.public) for domain, admin in zip(domains, self._admins, strict=True)]
        self.person_of: list[int] = []
        self.devices_of: list[tuple[int, ...]] = []
        for person, count in enumerate(population.devices):
            first = len(self.person_of)
            self.devices_of.append(tuple(range(first, first + count)))
            self.person_of += [person] * count
        self.keys = [self._device_keys(device) for device in range(len(self.person_of))]
        self.by_mailbox = {keys.mailbox: device for device, keys in enumerate(self.keys)}
        self._persons = {account: person for person, account in enumerate(population.accounts)}
        self._views: dict[bytes, ListView] = {}
        self._lists: dict[int, SignedList] = {}
        self._approved: set[int] = set()
        self.handsets: list[Handset] = []

    def _device_keys(self, device: int) -> DeviceKeys:
        rng = generator(self._seed, f"device/{device}")
        public = SigningKey(rng.randbytes(KEY_BYTES)).public
        return DeviceKeys(public, rng.randbytes(KEY_BYTES), rng.randbytes(ID_BYTES), device_tag(public))

    def _signing_key(self, device: int) -> SigningKey:
        return SigningKey(generator(self._seed, f"device/{device}").randbytes(KEY_BYTES))

    def _account_key(self, person: int) -> SigningKey:
        return SigningKey(generator(self._seed, f"account/{person}").randbytes(KEY_BYTES))

    # ---- joining

    def joining(self, device: int) -> Joining | None:
        """How a device joins; None: it has to wait until it is on the list."""
        person = self.person_of[device]
        if device == self.devices_of[person][0]:
            return Joining(lambda ref: self._enrol(ref, person, device))
        if device in self._approved:
            return Joining(lambda ref: PublishPrekeys(ref, self._prekeys(device)))
        return None

    def _enrol(self, ref: int, person: int, device: int) -> Enrol:
        account = self._population.accounts[person]
        tenant = self._population.tenants[person]
        domain = self.admin_keys[tenant][0]
        nonce = generator(self._seed, f"token/{person}").randbytes(16)
        token = sign_activation(self._admins[tenant], Activation(domain, account, nonce, self._now_s + _TOKEN_S))
        key = self._account_key(person)
        signed = sign_list(key, DeviceList(account, 1, NO_PREVIOUS, key.public, (self.keys[device].entry,)))
        self._lists[person] = signed
        return Enrol(ref, token, signed, self._prekeys(device))

    def _prekeys(self, device: int) -> Prekeys:
        rng = generator(self._seed, f"prekeys/{device}")
        signing = self._signing_key(device)
        prekey_id, key, kem_key = rng.randbytes(16), rng.randbytes(KEY_BYTES), rng.randbytes(ML_KEM_768_PUBLIC_BYTES)
        current = signing.sign("signed-prekey", signed_prekey_signed_bytes(prekey_id, key))
        last_resort = signing.sign("kem-prekey", kem_prekey_signed_bytes(prekey_id, kem_key))
        one_time = []
        for _ in range(_ONE_TIME_PREKEYS):
            half = rng.randbytes(16), rng.randbytes(KEY_BYTES), rng.randbytes(ML_KEM_768_PUBLIC_BYTES)
            one_time.append(OneTimePrekey(*half, signing.sign("one-time-prekey", one_time_prekey_signed_bytes(*half))))
        return Prekeys(
            signing.public,
            SignedPrekey(prekey_id, key, current),
            KemPrekey(prekey_id, kem_key, last_resort),
            tuple(one_time),
        )

    def joined(self, handset: "Handset") -> None:
        """A device is enrolled; the first one of a person puts the others on the list."""
        devices = self.devices_of[handset.person]
        if handset.index == devices[0] and len(devices) > 1:
            before = self._lists[handset.person]
            key = self._account_key(handset.person)
            entries = tuple(self.keys[device].entry for device in devices)
            account = self._population.accounts[handset.person]
            after = sign_list(key, DeviceList(account, 2, list_hash(before), key.public, entries))
            self._lists[handset.person] = after
            handset.publish_list(after)

    def listed(self, handset: "Handset") -> None:
        """The relay has the list: the other devices may join."""
        for device in self.devices_of[handset.person][1:]:
            self._approved.add(device)
            if self.handsets[device].linked:
                self.handsets[device].enrol()

    # ---- lists

    def view_of(self, signed: SignedList) -> ListView:
        """What a list says, verified; each list once for all who are told it.

        Raises:
            FormatError, SignatureError: it is none.
        """
        view = self._views.get(signed.list)
        if view is None:
            devices = verify_signed_list(signed)
            entries = tuple((self.by_mailbox.get(entry.mailbox, -1), entry.mailbox) for entry in devices.devices)
            view = self._views[signed.list] = ListView(
                self._persons[devices.account],
                devices.account,
                devices.account_key,
                devices.version,
                list_hash(signed),
                entries,
            )
        return view

    def person_named(self, account: str) -> int:
        """The number of a person."""
        return self._persons[account]

    def own_others(self, handset: "Handset") -> list[tuple[int, bytes]]:
        """The person's other devices that are enrolled: they get a copy of what is sent."""
        devices = self.devices_of[handset.person]
        if len(devices) == 1:
            return []
        return [
            (device, self.keys[device].mailbox)
            for device in devices
            if device != handset.index and self.handsets[device].enrolled
        ]
