"""Labels, typed keys, and Ed25519 by libsodium's rule (protocol.md sections 1.3 and 1.4)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wire.errors import FormatError, SignatureError
from wire.hashing import KeyRole, hash16, hash32, keyed, label, typed
from wire.signing import SigningKey, verify

KEY = SigningKey(bytes(range(32)))
# The canonical encodings of points of small order (libsodium's own blocklist).
SMALL_ORDER = [
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0100000000000000000000000000000000000000000000000000000000000000",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
]
GROUP_ORDER = 2**252 + 27742317777372353535851937790883648493


def test_a_signature_verifies_under_its_label_and_no_other() -> None:
    signature = KEY.sign("commit", b"data")
    verify(KEY.public, "commit", b"data", signature)
    with pytest.raises(SignatureError, match="disclosure: signature does not verify"):
        verify(KEY.public, "disclosure", b"data", signature)


def test_ed25519_matches_rfc_8032_test_1_behind_the_label() -> None:
    seed = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
    public = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
    assert SigningKey(seed).public.hex() == public
    assert SigningKey(seed).seed == seed


@pytest.mark.parametrize("point", SMALL_ORDER)
def test_a_key_of_small_order_signs_nothing(point: str) -> None:
    # With a small-order key and R, S = 0 satisfies the cofactored equation for many messages: libraries disagree here.
    for r in SMALL_ORDER:
        with pytest.raises(SignatureError):
            verify(bytes.fromhex(point), "commit", b"data", bytes.fromhex(r) + bytes(32))


def test_an_unreduced_s_is_refused() -> None:
    signature = KEY.sign("commit", b"data")
    s = int.from_bytes(signature[32:], "little") + GROUP_ORDER
    with pytest.raises(SignatureError):
        verify(KEY.public, "commit", b"data", signature[:32] + s.to_bytes(32, "little"))


@given(st.binary(max_size=40), st.integers(0, 511))
def test_any_flipped_bit_of_a_signature_is_refused(data: bytes, bit: int) -> None:
    signature = bytearray(KEY.sign("commit", data))
    signature[bit // 8] ^= 1 << bit % 8
    with pytest.raises(SignatureError):
        verify(KEY.public, "commit", data, bytes(signature))


@pytest.mark.parametrize(
    ("public", "signature"), [(b"short", bytes(64)), (bytes(32), b"short"), (bytes(33), bytes(64))]
)
def test_wrong_lengths_do_not_verify(public: bytes, signature: bytes) -> None:
    with pytest.raises(SignatureError):
        verify(public, "commit", b"", signature)


def test_a_signing_key_shows_no_secret() -> None:
    assert repr(KEY) == f"SigningKey(public={KEY.public.hex()}, seed=<redacted>)"
    assert bytes(range(32)).hex() not in repr(KEY)


def test_a_seed_of_wrong_length_is_refused_without_being_shown() -> None:
    with pytest.raises(FormatError, match=r"signing seed: has 5 bytes \(limit 32\)") as caught:
        SigningKey(b"guess")
    assert "guess" not in str(caught.value)


def test_labels_separate_hashes() -> None:
    assert label("commit") == b"blindpost/v1/commit\0"
    assert hash16("a", b"") != hash16("b", b"")
    assert len(hash16("a", b"")) == 16
    assert hash32("a", b"x") != hash32("ax", b"")


def test_keyed_hash_is_blake2b_with_person() -> None:
    # RFC 7693 appendix A has no keyed vector with a person; hashlib is the reference, and the parameters must count.
    outputs = {keyed(b"k" * 32, person, data, 32) for person in (b"a", b"b") for data in (b"", b"x")}
    assert len(outputs) == 4
    assert len(keyed(b"k" * 32, b"bp1-chain", b"", 64)) == 64


@pytest.mark.parametrize("role", list(KeyRole))
def test_typed_keys_have_the_length_of_their_role(role: KeyRole) -> None:
    size = 1_184 if "KEM" in role.name else 32
    assert typed(role, bytes(size)) == bytes([role]) + bytes(size)
    with pytest.raises(FormatError, match=f"has {size - 1} bytes, not {size}"):
        typed(role, bytes(size - 1))
