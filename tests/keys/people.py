"""Two people with a device each, for the tests of keys/."""

import hashlib
from dataclasses import dataclass

from keys.identity import AccountKey, DeviceKeys
from keys.prekeys import PrekeyRing
from keys.session import Accepted, Session
from wire.identity import SignedList
from wire.prekeys import Bundle, Prekeys

NOW_S = 1_448_841_600


class SeededEntropy:
    """Bytes that look random and are the same in every run."""

    def __init__(self, seed: str) -> None:
        self._seed = seed
        self._count = 0

    def __call__(self, size: int) -> bytes:
        self._count += 1
        return hashlib.shake_256(f"{self._seed}/{self._count}".encode()).digest(size)


def envelope_id(number: int) -> bytes:
    return number.to_bytes(16, "big")


@dataclass
class Person:
    account_key: AccountKey
    device: DeviceKeys
    signed_list: SignedList
    ring: PrekeyRing
    upload: Prekeys
    entropy: SeededEntropy

    @classmethod
    def make(cls, name: str, one_time: int = 1) -> "Person":
        entropy = SeededEntropy(name)
        account_key = AccountKey.generate(entropy)
        device = DeviceKeys.generate(entropy)
        ring, upload = PrekeyRing.generate(device, NOW_S, one_time, entropy)
        signed_list = account_key.first_list(f"{name}@acme.example", [device.entry])
        return cls(account_key, device, signed_list, ring, upload, entropy)

    def bundle(self, one_time: bool = True) -> Bundle:
        taken = self.upload.one_time[:1] if one_time else ()
        return Bundle(self.upload.device_key, self.upload.signed_prekey, self.upload.kem_prekey, taken)

    def initiate(self, peer: "Person", one_time: bool = True) -> Session:
        return Session.initiate(self.device, self.signed_list, peer.device.entry, peer.bundle(one_time), self.entropy)

    def accept(self, body: bytes, number: int, now_s: int = NOW_S) -> Accepted:
        return Session.accept(
            self.device,
            self.ring,
            body,
            envelope_id(number),
            now_s,
            check_sender=lambda inbound: None,
            entropy=self.entropy,
        )


def pair(one_time: bool = True) -> tuple[Session, Session]:
    """Two sessions that have exchanged a message each way: envelope ids 1 and 2 are used."""
    ana, ben = Person.make("ana"), Person.make("ben")
    a = ana.initiate(ben, one_time)
    accepted = ben.accept(a.encrypt(b"hello", envelope_id(1)), 1)
    b = accepted.session
    assert accepted.content == b"hello"
    assert a.decrypt(b.encrypt(b"hi", envelope_id(2)), envelope_id(2), NOW_S) == b"hi"
    return a, b
