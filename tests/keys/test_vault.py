"""The vault: keys at rest (architecture: keys at rest; RFC 9106)."""

import pytest

from keys.errors import VaultDamaged, VaultLimit, WrongPassphrase
from keys.vault import CHEAP_FOR_TESTS, MEMORY_BYTES_MAX, Cost, Vault
from tests.keys.people import SeededEntropy
from wire.codec import decode, encode
from wire.errors import FormatError


@pytest.fixture
def vault() -> Vault:
    return Vault.create(b"correct horse", CHEAP_FOR_TESTS, SeededEntropy("vault"))


def test_row_survives_and_another_unlocking_reads_it(vault: Vault) -> None:
    sealed = vault.seal(b"ratchet", b"session/1")
    again = Vault.unlock(vault.header, b"correct horse")
    assert again.open(sealed, b"session/1") == b"ratchet"
    assert again.name_key() == vault.name_key()
    assert b"ratchet" not in sealed


def test_wrong_passphrase_is_a_typed_error_that_does_not_repeat_it(vault: Vault) -> None:
    with pytest.raises(WrongPassphrase) as caught:
        Vault.unlock(vault.header, b"correct hearse")
    assert "hearse" not in str(caught.value)


def test_row_moved_to_another_name_does_not_open(vault: Vault) -> None:
    with pytest.raises(VaultDamaged):
        vault.open(vault.seal(b"ratchet", b"session/1"), b"session/2")


def test_row_of_another_vault_does_not_open(vault: Vault) -> None:
    other = Vault.create(b"correct horse", CHEAP_FOR_TESTS, SeededEntropy("other"))
    with pytest.raises(VaultDamaged):
        vault.open(other.seal(b"ratchet", b"session/1"), b"session/1")
    assert other.name_key() != vault.name_key()


def test_every_flipped_bit_of_a_row_is_noticed(vault: Vault) -> None:
    sealed = vault.seal(b"x", b"r")
    for at in range(8 * len(sealed)):
        flipped = bytearray(sealed)
        flipped[at // 8] ^= 1 << at % 8
        with pytest.raises(VaultDamaged):
            vault.open(bytes(flipped), b"r")


@pytest.mark.parametrize("length", [0, 10, 24, 39])
def test_row_that_is_too_short_does_not_open(vault: Vault, length: int) -> None:
    with pytest.raises(VaultDamaged):
        vault.open(bytes(length), b"r")


def test_change_of_passphrase_keeps_the_rows(vault: Vault) -> None:
    sealed = vault.seal(b"ratchet", b"session/1")
    old = vault.header
    header = vault.change_passphrase(b"battery staple", CHEAP_FOR_TESTS)
    assert header == vault.header != old
    assert Vault.unlock(header, b"battery staple").open(sealed, b"session/1") == b"ratchet"
    with pytest.raises(WrongPassphrase):
        Vault.unlock(header, b"correct horse")


def rewritten(header: bytes, **changes: object) -> bytes:
    fields = decode(list, header, "header")
    for name, value in changes.items():
        fields[["kind", "operations", "memory_bytes", "salt", "nonce", "wrapped"].index(name)] = value
    return encode(fields)


@pytest.mark.parametrize(
    ("field", "value", "limit"),
    [
        ("memory_bytes", 2**40, MEMORY_BYTES_MAX),
        ("memory_bytes", 8_191, 8_192),
        ("operations", 17, 16),
        ("operations", 0, 1),
    ],
)
def test_hostile_parameters_are_refused_before_they_run(vault: Vault, field: str, value: int, limit: int) -> None:
    with pytest.raises(VaultLimit, match=rf"{field}: {value} is out of bounds \(limit {limit}\)"):
        Vault.unlock(rewritten(vault.header, **{field: value}), b"correct horse")


def test_parameters_are_bound_to_the_wrapped_key(vault: Vault) -> None:
    with pytest.raises(WrongPassphrase):
        Vault.unlock(rewritten(vault.header, operations=2), b"correct horse")
    with pytest.raises(FormatError, match="is of another kind"):
        Vault.unlock(rewritten(vault.header, kind="vault/2"), b"correct horse")


def test_damaged_header_is_refused(vault: Vault) -> None:
    with pytest.raises(FormatError):
        Vault.unlock(vault.header[:-1], b"correct horse")


@pytest.mark.parametrize("passphrase", [b"", b"x" * 4_097])
def test_passphrase_out_of_bounds_is_refused(passphrase: bytes) -> None:
    with pytest.raises(FormatError, match=rf"passphrase: has {len(passphrase)} bytes \(limit 4096\)"):
        Vault.create(passphrase, CHEAP_FOR_TESTS)


def test_row_name_out_of_bounds_is_refused(vault: Vault) -> None:
    with pytest.raises(FormatError, match=r"row: has a name of 1025 bytes \(limit 1024\)"):
        vault.seal(b"", b"n" * 1_025)


def test_repr_shows_no_key(vault: Vault) -> None:
    assert repr(vault) == "Vault(key=<redacted>)"


def test_header_does_not_hold_the_key(vault: Vault) -> None:
    assert vault._key not in vault.header


def test_cost_that_libsodium_runs_with_several_passes() -> None:
    vault = Vault.create(b"p", Cost(3, 65_536), SeededEntropy("several"))
    assert Vault.unlock(vault.header, b"p").name_key() == vault.name_key()
