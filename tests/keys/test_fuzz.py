"""Bytes from anywhere: what is read is written again to the very same bytes, or refused by a typed error."""

from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keys.chunks import FileKey
from keys.handshake import open_inbound
from keys.identity import AccountKey, DeviceKeys, TenantAdminKey
from keys.prekeys import PrekeyRing
from keys.session import Session
from keys.session_set import SessionSet
from keys.vault import CHEAP_FOR_TESTS, Vault
from tests.keys.people import NOW_S, Person, SeededEntropy, envelope_id, pair
from wire.errors import BlindpostError, FormatError

ANA, BEN = Person.make("ana"), Person.make("ben", one_time=2)
FIRST = ANA.initiate(BEN).encrypt(b"hello", envelope_id(1))


def used_session() -> Session:
    """A session with skipped keys, in the middle of a turn."""
    a, b = pair()
    a.encrypt(b"lost", envelope_id(3))
    b.decrypt(a.encrypt(b"m", envelope_id(4)), envelope_id(4), NOW_S)
    return b


def used_ring() -> PrekeyRing:
    ring, upload = PrekeyRing.generate(BEN.device, NOW_S, 2, SeededEntropy("fuzz"))
    ring.consume(upload.signed_prekey.id, b"h" * 16)
    ring.rotate(NOW_S + 1, 1)
    return ring


def written_session_set() -> bytes:
    only = SessionSet()
    only.began(used_session())
    return only.to_bytes()


Loader = Callable[[bytes], bytes]
LOADERS: dict[str, tuple[bytes, Loader]] = {
    "session": (used_session().to_bytes(), lambda data: Session.from_bytes(data).to_bytes()),
    "session set": (written_session_set(), lambda data: SessionSet.from_bytes(data).to_bytes()),
    "prekey ring": (used_ring().to_bytes(), lambda data: PrekeyRing.from_bytes(data, BEN.device).to_bytes()),
    "device": (BEN.device.to_bytes(), lambda data: DeviceKeys.from_bytes(data).to_bytes()),
    "account": (BEN.account_key.to_bytes(), lambda data: AccountKey.from_bytes(data).to_bytes()),
    "tenant": (TenantAdminKey.generate().to_bytes(), lambda data: TenantAdminKey.from_bytes(data).to_bytes()),
    "vault": (
        Vault.create(b"p", CHEAP_FOR_TESTS, SeededEntropy("fuzz vault")).header,
        lambda data: Vault.unlock(data, b"p").header,
    ),
}


@st.composite
def spoilt(draw: st.DrawFn, good: bytes) -> bytes:
    """The good bytes with a few of them changed, cut, or repeated."""
    data = bytearray(good)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(0, len(data) - 1)))
        action = draw(st.sampled_from(["flip", "cut", "insert", "repeat"]))
        if action == "flip" and data:
            data[at] ^= 1 << draw(st.integers(0, 7))
        elif action == "cut":
            del data[at : at + draw(st.integers(1, 40))]
        elif action == "insert":
            data[at:at] = draw(st.binary(min_size=1, max_size=8))
        else:
            data[at:at] = data[at : at + draw(st.integers(1, 40))]
    return bytes(data)


@pytest.mark.parametrize("name", LOADERS)
def test_loader_reads_what_it_wrote(name: str) -> None:
    good, again = LOADERS[name]
    assert again(good) == good


@pytest.mark.parametrize("name", LOADERS)
def test_loader_refuses_or_repeats_any_bytes(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    good, again = LOADERS[name]
    monkeypatch.setattr("keys.vault.MEMORY_BYTES_MAX", 2**20)  # a gigabyte is allowed, and no use here

    @settings(max_examples=60, deadline=None)
    @given(st.one_of(st.binary(max_size=200), spoilt(good)))
    def check(data: bytes) -> None:
        try:
            written = again(data)
        except BlindpostError:
            return
        assert written == data

    check()


@settings(max_examples=100, deadline=None)
@given(st.one_of(st.binary(min_size=390, max_size=2_500), spoilt(FIRST)))
def test_first_bodies_of_any_bytes_are_refused_by_a_typed_error(body: bytes) -> None:
    before = BEN.ring.to_bytes()
    try:
        open_inbound(BEN.device, BEN.ring, body)
    except BlindpostError:
        pass
    else:
        # Everything up to the end of the sealed sender is authentic, but for commitment, nonce and header, which the
        # session checks next.
        assert body[:16] + body[128:1_778] == FIRST[:16] + FIRST[128:1_778]
    assert BEN.ring.to_bytes() == before


@settings(max_examples=100, deadline=None)
@given(st.one_of(st.binary(min_size=390, max_size=2_500), spoilt(FIRST)))
def test_bodies_of_any_bytes_open_in_no_session(body: bytes) -> None:
    session = used_session()
    before = session.to_bytes()
    with pytest.raises(BlindpostError):
        session.decrypt(body, envelope_id(1), NOW_S)
    with pytest.raises(BlindpostError):
        session.message_key_of(body, envelope_id(1), NOW_S)
    assert session.to_bytes() == before


@settings(max_examples=50, deadline=None)
@given(st.binary(max_size=40_000))
def test_chunks_of_any_bytes_are_refused_by_a_typed_error(body: bytes) -> None:
    key = FileKey(bytes(32))
    with pytest.raises(BlindpostError):
        key.open(0, body, key.envelope_id(0), bytes(32), bytes(32))


def test_stored_session_set_with_a_session_twice_is_refused() -> None:
    one = used_session().to_bytes()
    with pytest.raises(FormatError, match="sessions: name a session twice"):
        SessionSet.from_bytes(msgspec.msgpack.encode((1, (one, one))))


def test_stored_ratchet_with_a_hint_twice_is_refused() -> None:
    fields = msgspec.msgpack.decode(used_session().to_bytes())
    ratchet = msgspec.msgpack.decode(fields[7])
    rows = msgspec.msgpack.decode(ratchet[14])
    ratchet[14] = msgspec.msgpack.encode(rows + rows)
    fields[7] = msgspec.msgpack.encode(ratchet)
    with pytest.raises(FormatError, match=r"ratchet\.skipped: names a hint twice"):
        Session.from_bytes(msgspec.msgpack.encode(fields))


@pytest.mark.parametrize("at", [4, 5])
def test_stored_ring_with_an_id_twice_is_refused(at: int) -> None:
    kind, generations = msgspec.msgpack.decode(used_ring().to_bytes())
    generations[0][at] *= 2
    with pytest.raises(FormatError, match="names an id twice"):
        PrekeyRing.from_bytes(msgspec.msgpack.encode((kind, generations)), BEN.device)
