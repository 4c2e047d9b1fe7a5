"""Published vectors, through the functions that keys/ and wire/ really call (protocol.md section 1.3)."""

from pathlib import Path

import cryptography_vectors
import pytest
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from nacl.bindings import crypto_generichash_blake2b_salt_personal

from keys.agreement import decapsulate, diffie_hellman, encapsulate, hkdf, kem_public, x_public
from keys.errors import AuthenticationFailed
from keys.message import aead_open, aead_seal
from keys.vault import Cost, stretch
from wire.errors import SignatureError
from wire.hashing import keyed
from wire.signing import SigningKey, verify

VECTORS = Path(cryptography_vectors.__file__).parent


def records(path: str) -> list[dict[str, str]]:
    """Blocks of `name = value` lines; a block begins where a name occurs again."""
    found: list[dict[str, str]] = []
    for line in (VECTORS / path).read_text().splitlines():
        name, equals, value = line.partition("=")
        if line.startswith("#") or not equals:
            continue
        name = name.strip().lower()
        if not found or name in found[-1]:
            found.append({})
        found[-1][name] = value.strip()
    return found


def test_x25519_rfc_7748_section_5_2() -> None:
    cases = records("asymmetric/X25519/rfc7748.txt")
    assert len(cases) >= 3
    for case in cases[:2]:
        shared = diffie_hellman(bytes.fromhex(case["input_scalar"]), bytes.fromhex(case["input_u"]))
        assert shared.hex() == case["output_u"]


def test_x25519_rfc_7748_section_5_2_iterated() -> None:
    k = u = bytes([9]) + bytes(31)
    for _ in range(1_000):
        k, u = diffie_hellman(k, u), k
    assert k.hex() == "684cf59ba83309552800ef566f2f4d3c1c3887c49360e3875f2eb94d99532c51"


def test_hkdf_sha_256_rfc_5869() -> None:
    cases = records("KDF/rfc-5869-HKDF-SHA256.txt")
    assert len(cases) == 3
    for case in cases:
        ikm, salt, info = (bytes.fromhex(case[name]) for name in ("ikm", "salt", "info"))
        assert hkdf(ikm, salt, info, int(case["l"])).hex() == case["okm"]


def test_ml_kem_768_known_answers() -> None:
    cases = records("asymmetric/MLKEM/kat_MLKEM_768.rsp")
    assert len(cases) >= 100
    for case in cases:
        seed = bytes.fromhex(case["d"] + case["z"])
        assert kem_public(seed).hex() == case["pk"]
        assert decapsulate(seed, bytes.fromhex(case["ct"])).hex() == case["ss"]


def test_ml_kem_768_encapsulation_agrees_with_decapsulation() -> None:
    seed = bytes(range(64))
    secret, ciphertext = encapsulate(kem_public(seed))
    assert decapsulate(seed, ciphertext) == secret
    flipped = bytes([ciphertext[0] ^ 1]) + ciphertext[1:]
    assert decapsulate(seed, flipped) != secret  # implicit rejection: another secret, no error


def test_blake2b_rfc_7693_and_official_vectors() -> None:
    cases = records("hashes/blake2/blake2b.txt")
    assert any(case["msg"] == "616263" for case in cases)  # RFC 7693 appendix A
    for case in cases:
        message = bytes.fromhex(case["msg"])[: int(case["len"]) // 8]
        assert keyed(b"", b"", message, 64).hex() == case["md"]


@pytest.mark.parametrize("size", [16, 32, 64])
@pytest.mark.parametrize("person", [b"bp1-chain", b"bp1-message", b"bp1-hint", b"bp1-chunk-token"])
def test_blake2b_with_key_and_person_agrees_with_libsodium(person: bytes, size: int) -> None:
    key = bytes(range(32))
    theirs = crypto_generichash_blake2b_salt_personal(b"data", size, key=key, person=person.ljust(16, b"\0"))
    assert keyed(key, person, b"data", size) == theirs


# draft-irtf-cfrg-xchacha-03, appendix A.3.1
XCHACHA_PLAINTEXT = (
    b"Ladies and Gentlemen of the class of '99: "
    b"If I could offer you only one tip for the future, sunscreen would be it."
)
XCHACHA_KEY = bytes(range(0x80, 0xA0))
XCHACHA_NONCE = bytes(range(0x40, 0x58))
XCHACHA_AD = bytes.fromhex("50515253c0c1c2c3c4c5c6c7")
XCHACHA_SEALED = bytes.fromhex(
    "bd6d179d3e83d43b9576579493c0e939572a1700252bfaccbed2902c21396cbb731c7f1b0b4aa6440bf3a82f4eda7e39ae64c6708c54c216"
    "cb96b72e1213b4522f8c9ba40db5d945b11b69b982c1bb9e3f3fac2bc369488f76b2383565d3fff921f9664c97637da9768812f615c68b13b"
    "52ec0875924c1c7987947deafd8780acf49"
)


def test_xchacha20_poly1305_draft_irtf_cfrg_xchacha_a_3_1() -> None:
    assert aead_seal(XCHACHA_PLAINTEXT, XCHACHA_AD, XCHACHA_NONCE, XCHACHA_KEY) == XCHACHA_SEALED
    assert aead_open(XCHACHA_SEALED, XCHACHA_AD, XCHACHA_NONCE, XCHACHA_KEY, "vector") == XCHACHA_PLAINTEXT


@pytest.mark.parametrize("at", [0, 50, len(XCHACHA_SEALED) - 1])
def test_xchacha20_poly1305_refuses_a_flipped_bit(at: int) -> None:
    flipped = bytearray(XCHACHA_SEALED)
    flipped[at] ^= 1
    with pytest.raises(AuthenticationFailed, match="vector"):
        aead_open(bytes(flipped), XCHACHA_AD, XCHACHA_NONCE, XCHACHA_KEY, "vector")


def test_argon2id_rfc_9106_through_a_second_implementation() -> None:
    # RFC 9106 section 5.3 uses four lanes, a secret and associated data, which libsodium does not offer. OpenSSL's
    # passes it, and agrees with ours where both can.
    case = records("KDF/argon2id.txt")[0]
    theirs = Argon2id(
        salt=bytes.fromhex(case["salt"]),
        length=int(case["length"]),
        iterations=int(case["iter"]),
        lanes=int(case["lanes"]),
        memory_cost=int(case["memcost"]),
        ad=bytes.fromhex(case["ad"]),
        secret=bytes.fromhex(case["secret"]),
    )
    assert theirs.derive(bytes.fromhex(case["pass"])).hex() == case["output"]
    for iterations, kib in ((1, 8), (3, 1_024)):
        salt = bytes(range(16))
        second = Argon2id(salt=salt, length=32, iterations=iterations, lanes=1, memory_cost=kib)
        assert stretch(b"correct horse", salt, Cost(iterations, kib * 1_024)) == second.derive(b"correct horse")


@pytest.fixture
def no_label(monkeypatch: pytest.MonkeyPatch) -> None:
    """Published signatures are over bare messages; ours are over a label and the message."""
    monkeypatch.setattr("wire.signing.label", lambda name: b"")


@pytest.mark.usefixtures("no_label")
def test_ed25519_rfc_8032_signatures() -> None:
    lines = (VECTORS / "asymmetric/Ed25519/sign.input").read_text().splitlines()
    assert len(lines) == 1_024
    for line in lines[:256]:
        secret, public, message, signed = (bytes.fromhex(field) for field in line.split(":")[:4])
        key = SigningKey(secret[:32])
        assert key.public == public
        assert key.sign("bare", message) == signed[:64]
        verify(public, "bare", message, signed[:64])


GROUP_ORDER = 2**252 + 27742317777372353535851937790883648493
SMALL_ORDER_ED25519 = [
    "0100000000000000000000000000000000000000000000000000000000000000",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "0000000000000000000000000000000000000000000000000000000000000080",
    "0000000000000000000000000000000000000000000000000000000000000000",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
]


@pytest.mark.parametrize("public", SMALL_ORDER_ED25519)
def test_ed25519_small_order_public_key_is_refused_even_where_the_equation_holds(public: str) -> None:
    # With R the identity, S = 0 and A of small order, [S]B = R + [k]A holds for 1 in 1, 2, 4 or 8 messages.
    signature = bytes([1]) + bytes(63)
    for number in range(16):
        with pytest.raises(SignatureError):
            verify(bytes.fromhex(public), "receipt", bytes([number]), signature)


@pytest.mark.parametrize("small", SMALL_ORDER_ED25519)
def test_ed25519_small_order_r_is_refused(small: str) -> None:
    key = SigningKey(bytes(32))
    signature = key.sign("receipt", b"m")
    with pytest.raises(SignatureError):
        verify(key.public, "receipt", b"m", bytes.fromhex(small) + signature[32:])


def test_ed25519_s_that_is_not_reduced_is_refused() -> None:
    key = SigningKey(bytes(32))
    signature = key.sign("receipt", b"m")
    s = int.from_bytes(signature[32:], "little")
    with pytest.raises(SignatureError):
        verify(key.public, "receipt", b"m", signature[:32] + (s + GROUP_ORDER).to_bytes(32, "little"))


def test_ed25519_public_key_that_is_not_canonical_is_refused() -> None:
    # y = 1 written as p + 1.
    not_canonical = (2**255 - 19 + 1).to_bytes(32, "little")
    with pytest.raises(SignatureError):
        verify(not_canonical, "receipt", b"m", bytes([1]) + bytes(63))


def test_x25519_public_key_is_the_product_with_the_base_point() -> None:
    for seed in range(8):
        private = bytes([seed]) * 32
        assert x_public(private) == diffie_hellman(private, bytes([9]) + bytes(31))
