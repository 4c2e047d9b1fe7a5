"""The private halves of a device's prekeys (protocol.md section 2.4).

A ring holds generations: a signed prekey with its last-resort ML-KEM key and the one-time prekeys that belong to it.
It leaves to client/ when to upload and how much is left at the relay, to keys/handshake.py what a first message does
with a half, and takes the time from outside.

Rules:

* a generation is made every 7 days and replaces the one before at the relay; the old one's private halves stay for
  7 days more, because mail may be under way, and are erased then (`rotate`);
* a private one-time half is erased at its first successful use (`consume`), never before the message has verified;
* first messages without a one-time prekey could be replayed while their generation lives: the handshakes accepted on it
  are remembered until it is erased (`consume` again), and a second acceptance is refused.
"""

import os
from typing import Annotated, Final, NamedTuple

from msgspec import Meta

from keys.agreement import KEM_SEED_BYTES, Entropy, draw, kem_public, x_public
from keys.errors import HandshakeError, HandshakeReplayed, PrekeyUnknown
from keys.identity import DeviceKeys
from wire.codec import U64, Id, Key, SecretRecord, decode, encode
from wire.errors import FormatError
from wire.hashing import KeyRole
from wire.limits import (
    ID_BYTES,
    KEY_BYTES,
    ONE_TIME_PREKEYS_KEPT_MAX,
    ONE_TIME_PREKEYS_LOW,
    ONE_TIME_PREKEYS_PER_UPLOAD_MAX,
    PREKEY_GRACE_S,
    PREKEY_ROTATION_S,
)
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

__all__ = ["PrekeyHalves", "PrekeyRing"]

_KIND: Final = "prekey-ring/1"
# A prekey half is 112 bytes at rest. A relay that hands out prekeys as fast as it is given them makes us add more; the
# oldest unused ones go first, beyond four times what a relay keeps.
ONE_TIME_HALVES_MAX: Final = 4 * ONE_TIME_PREKEYS_KEPT_MAX
# What is remembered of accepted handshakes, 16 bytes each. To forget one would allow its replay, so that beyond this
# many on one last-resort prekey further ones are refused until the next rotation.
ACCEPTED_MAX: Final = 65_536
# Two live at a time when rotation is weekly; whoever forces rotations loses the oldest beyond this.
GENERATIONS_MAX: Final = 16

KemSeed = Annotated[bytes, Meta(min_length=KEM_SEED_BYTES, max_length=KEM_SEED_BYTES)]


class _OneTime(SecretRecord, frozen=True):
    id: Id
    x_private: Key
    kem_seed: KemSeed


class _Generation(SecretRecord, frozen=True):
    id: Id
    made_s: U64
    x_private: Key
    kem_seed: KemSeed
    one_time: tuple[_OneTime, ...]
    accepted: tuple[Id, ...]


class _Ring(SecretRecord, frozen=True):
    kind: str
    generations: Annotated[tuple[_Generation, ...], Meta(min_length=1, max_length=GENERATIONS_MAX)]


class PrekeyHalves(NamedTuple):
    """What answers one first message: the private halves that its prekey id names."""

    signed_private: bytes
    signed_public: bytes
    one_time_private: bytes  # empty when the first message used no one-time prekey
    kem_seed: bytes
    kem_role: KeyRole

    def __repr__(self) -> str:
        return f"PrekeyHalves(signed_public={self.signed_public.hex()}, kem_role={self.kem_role!r}, private=<redacted>)"


class _Living:
    """A generation in memory."""

    __slots__ = ("accepted", "id", "kem_seed", "made_s", "one_time", "x_private", "x_public")

    def __init__(self, prekey_id: bytes, made_s: int, x_private: bytes, kem_seed: bytes) -> None:
        self.id = prekey_id
        self.made_s = made_s
        self.x_private = x_private
        self.x_public = x_public(x_private)
        self.kem_seed = kem_seed
        self.one_time: dict[bytes, _OneTime] = {}
        self.accepted: dict[bytes, None] = {}

    def __repr__(self) -> str:
        return f"_Living(id={self.id.hex()}, made_s={self.made_s}, one_time={len(self.one_time)}, private=<redacted>)"


class PrekeyRing:
    """A device's prekeys, newest generation last."""

    __slots__ = ("_by_id", "_entropy", "_generations", "_signing")

    def __init__(self, device: DeviceKeys, entropy: Entropy = os.urandom) -> None:
        self._signing: SigningKey = device.signing
        self._entropy = entropy
        self._generations: list[_Living] = []
        self._by_id: dict[bytes, _Living] = {}

    def __repr__(self) -> str:
        counts = [len(generation.one_time) for generation in self._generations]
        return f"PrekeyRing(device={self._signing.public.hex()}, one_time={counts}, private=<redacted>)"

    # ------------------------------------------------------------------ making and uploading

    @classmethod
    def generate(
        cls,
        device: DeviceKeys,
        now_s: int,
        one_time: int = ONE_TIME_PREKEYS_PER_UPLOAD_MAX,
        entropy: Entropy = os.urandom,
    ) -> tuple["PrekeyRing", Prekeys]:
        """A new ring, and its first upload."""
        ring = cls(device, entropy)
        return ring, ring._new_generation(now_s, one_time)

    def rotation_due(self, now_s: int) -> bool:
        """Whether the current signed prekey is 7 days old."""
        return now_s >= self._generations[-1].made_s + PREKEY_ROTATION_S

    def rotate(self, now_s: int, one_time: int = ONE_TIME_PREKEYS_PER_UPLOAD_MAX) -> Prekeys:
        """A new generation, whose upload replaces everything at the relay; what is past its grace is erased.

        Make the ring durable before the upload leaves.
        """
        self.erase_expired(now_s)
        return self._new_generation(now_s, one_time)

    def erase_expired(self, now_s: int) -> int:
        """Erase generations that were replaced more than 7 days ago; returns how many.

        The grace counts from the replacement: a device that was away for weeks published its old generation until now.
        """
        erased = 0
        while len(self._generations) > 1 and self._generations[1].made_s + PREKEY_GRACE_S < now_s:
            self._erase_oldest()
            erased += 1
        return erased

    def _erase_oldest(self) -> None:
        generation = self._generations.pop(0)
        for prekey_id in (generation.id, *generation.one_time):
            del self._by_id[prekey_id]

    def replenish(self, left_at_relay: int) -> tuple[OneTimePrekey, ...]:
        """New one-time prekeys to add when fewer than 20 are left at the relay; nothing otherwise."""
        if left_at_relay >= ONE_TIME_PREKEYS_LOW:
            return ()
        return self._add_one_time(self._generations[-1], ONE_TIME_PREKEYS_PER_UPLOAD_MAX - left_at_relay)

    def publish_again(self, one_time: int = ONE_TIME_PREKEYS_PER_UPLOAD_MAX) -> Prekeys:
        """The newest generation's upload once more, with fresh one-time prekeys; the private halves of the old stay.

        For an upload that was never answered: the relay may have handed out one-time prekeys of it already, and must
        not be given them a second time. Make the ring durable before the upload leaves.
        """
        return self._upload(self._generations[-1], one_time)

    def _new_generation(self, now_s: int, one_time: int) -> Prekeys:
        prekey_id = draw(self._entropy, ID_BYTES)
        generation = _Living(prekey_id, now_s, draw(self._entropy, KEY_BYTES), draw(self._entropy, KEM_SEED_BYTES))
        self._generations.append(generation)
        self._by_id[prekey_id] = generation
        if len(self._generations) > GENERATIONS_MAX:
            self._erase_oldest()
        return self._upload(generation, one_time)

    def _upload(self, generation: _Living, one_time: int) -> Prekeys:
        prekey_id, kem_key = generation.id, kem_public(generation.kem_seed)
        sign = self._signing.sign
        signed = signed_prekey_signed_bytes(prekey_id, generation.x_public)
        return Prekeys(
            self._signing.public,
            SignedPrekey(prekey_id, generation.x_public, sign("signed-prekey", signed)),
            KemPrekey(prekey_id, kem_key, sign("kem-prekey", kem_prekey_signed_bytes(prekey_id, kem_key))),
            self._add_one_time(generation, one_time),
        )

    def _add_one_time(self, generation: _Living, count: int) -> tuple[OneTimePrekey, ...]:
        if not 0 <= count <= ONE_TIME_PREKEYS_PER_UPLOAD_MAX:
            raise FormatError("one-time prekeys", f"are {count}", ONE_TIME_PREKEYS_PER_UPLOAD_MAX)
        made = []
        for _ in range(count):
            half = _OneTime(
                draw(self._entropy, ID_BYTES), draw(self._entropy, KEY_BYTES), draw(self._entropy, KEM_SEED_BYTES)
            )
            public, kem_key = x_public(half.x_private), kem_public(half.kem_seed)
            signed = one_time_prekey_signed_bytes(half.id, public, kem_key)
            generation.one_time[half.id] = half
            self._by_id[half.id] = generation
            made.append(OneTimePrekey(half.id, public, kem_key, self._signing.sign("one-time-prekey", signed)))
        while len(generation.one_time) > ONE_TIME_HALVES_MAX:
            oldest = next(iter(generation.one_time))
            del generation.one_time[oldest], self._by_id[oldest]
        return tuple(made)

    # ------------------------------------------------------------------ answering first messages

    def __contains__(self, prekey_id: bytes) -> bool:
        return prekey_id in self._by_id

    def halves(self, prekey_id: bytes) -> PrekeyHalves:
        """The private halves for a first message's prekey id. Nothing is erased yet.

        Raises:
            PrekeyUnknown: used, erased after its grace, or never ours.
        """
        generation = self._by_id.get(prekey_id)
        if generation is None:
            raise PrekeyUnknown
        signed = generation.x_private, generation.x_public
        if prekey_id == generation.id:
            return PrekeyHalves(*signed, b"", generation.kem_seed, KeyRole.LAST_RESORT_KEM_PREKEY)
        half = generation.one_time[prekey_id]
        return PrekeyHalves(*signed, half.x_private, half.kem_seed, KeyRole.ONE_TIME_KEM_PREKEY)

    def check_fresh(self, prekey_id: bytes, handshake_id: bytes) -> None:
        """Refuse a handshake that was accepted before.

        Raises:
            PrekeyUnknown: no private half for this id.
            HandshakeReplayed: accepted before on this last-resort prekey.
            HandshakeError: 65,536 were accepted on it.
        """
        generation = self._by_id.get(prekey_id)
        if generation is None:
            raise PrekeyUnknown
        if handshake_id in generation.accepted:
            raise HandshakeReplayed
        if prekey_id == generation.id and len(generation.accepted) >= ACCEPTED_MAX:
            raise HandshakeError(f"last-resort prekey: {ACCEPTED_MAX} sessions were accepted on it; rotate the prekeys")

    def consume(self, prekey_id: bytes, handshake_id: bytes) -> None:
        """After the first message has verified: erase the one-time half, or remember the handshake.

        Args:
            prekey_id: as in the first message.
            handshake_id: 16 bytes that name the handshake (keys/handshake.py).

        Raises:
            PrekeyUnknown: no private half for this id.
            HandshakeReplayed: accepted before.
        """
        self.check_fresh(prekey_id, handshake_id)
        generation = self._by_id[prekey_id]
        if prekey_id == generation.id:
            generation.accepted[handshake_id] = None
        else:
            del generation.one_time[prekey_id], self._by_id[prekey_id]

    # ------------------------------------------------------------------ storage

    def secrets(self) -> tuple[tuple[str, bytes], ...]:
        """Name and bytes of each private half, for an owner who has them searched for (protocol.md section 12.2)."""
        named: list[tuple[str, bytes]] = []
        for living in self._generations:
            named += [("signed prekey", living.x_private), ("last-resort prekey", living.kem_seed)]
            for half in living.one_time.values():
                named += [("one-time prekey", half.x_private), ("one-time KEM prekey", half.kem_seed)]
        return tuple(named)

    def to_bytes(self) -> bytes:
        """All private halves, for sealed storage only."""
        return encode(
            _Ring(
                _KIND,
                tuple(
                    _Generation(
                        living.id,
                        living.made_s,
                        living.x_private,
                        living.kem_seed,
                        tuple(living.one_time.values()),
                        tuple(living.accepted),
                    )
                    for living in self._generations
                ),
            )
        )

    @classmethod
    def from_bytes(cls, data: bytes, device: DeviceKeys, entropy: Entropy = os.urandom) -> "PrekeyRing":
        """What `to_bytes` wrote.

        Raises:
            FormatError: anything else.
        """
        stored = decode(_Ring, data, _KIND)
        if stored.kind != _KIND:
            raise FormatError(_KIND, "is of another kind")
        ring = cls(device, entropy)
        for generation in stored.generations:
            living = _Living(generation.id, generation.made_s, generation.x_private, generation.kem_seed)
            living.one_time = {half.id: half for half in generation.one_time}
            living.accepted = dict.fromkeys(generation.accepted)
            known = len(ring._by_id)
            ring._generations.append(living)
            ring._by_id.update(dict.fromkeys((living.id, *living.one_time), living))
            added = len(ring._by_id) - known
            if added != 1 + len(generation.one_time) or len(living.accepted) != len(generation.accepted):
                raise FormatError(_KIND, "names an id twice")
        return ring
