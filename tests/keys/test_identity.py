"""Identities: lists, tokens, storage, and what a repr shows."""

from dataclasses import dataclass

import pytest

from keys.agreement import x_public
from keys.identity import AccountKey, DeviceKeys, TenantAdminKey
from tests.keys.people import NOW_S, SeededEntropy
from wire.errors import FormatError, SignatureError
from wire.identity import SignedList, check_follows, list_hash, verify_signed_list, verify_token


@dataclass
class Three:
    account: AccountKey
    device: DeviceKeys
    tenant: TenantAdminKey


@pytest.fixture
def three() -> Three:
    entropy = SeededEntropy("identity")
    return Three(AccountKey.generate(entropy), DeviceKeys.generate(entropy), TenantAdminKey.generate(entropy))


def test_same_entropy_gives_the_same_keys_and_other_entropy_others() -> None:
    assert DeviceKeys.generate(SeededEntropy("x")).to_bytes() == DeviceKeys.generate(SeededEntropy("x")).to_bytes()
    assert DeviceKeys.generate(SeededEntropy("x")).to_bytes() != DeviceKeys.generate(SeededEntropy("y")).to_bytes()
    assert AccountKey.generate().public != AccountKey.generate().public


def test_identity_survives_storage(three: Three) -> None:
    assert AccountKey.from_bytes(three.account.to_bytes()).public == three.account.public
    assert TenantAdminKey.from_bytes(three.tenant.to_bytes()).public == three.tenant.public
    device = DeviceKeys.from_bytes(three.device.to_bytes())
    assert device.entry == three.device.entry
    assert device.to_bytes() == three.device.to_bytes()


def test_key_of_one_kind_is_not_read_as_another(three: Three) -> None:
    with pytest.raises(FormatError, match="tenant-admin-key/1: is a key of another kind"):
        TenantAdminKey.from_bytes(three.account.to_bytes())
    with pytest.raises(FormatError, match="account-key/1: is a key of another kind"):
        AccountKey.from_bytes(three.tenant.to_bytes())
    with pytest.raises(FormatError, match="device-keys/1"):
        DeviceKeys.from_bytes(three.account.to_bytes())
    other = three.device.to_bytes().replace(b"device-keys/1", b"device-keys/2")
    with pytest.raises(FormatError, match="is a key of another kind"):
        DeviceKeys.from_bytes(other)


@pytest.mark.parametrize("cut", [0, 1, 10])
def test_damaged_storage_is_refused(three: Three, cut: int) -> None:
    for stored, kind in ((three.account.to_bytes(), AccountKey), (three.device.to_bytes(), DeviceKeys)):
        with pytest.raises(FormatError):
            kind.from_bytes(stored[: len(stored) - 1 - cut])
        with pytest.raises(FormatError):
            kind.from_bytes(stored + b"\0")


def test_device_keys_of_wrong_lengths_are_refused(three: Three) -> None:
    signing = three.account.signing
    with pytest.raises(FormatError, match=r"X25519 identity key: has 31 bytes \(limit 32\)"):
        DeviceKeys(signing, bytes(31), bytes(16))
    with pytest.raises(FormatError, match=r"mailbox: has 15 bytes \(limit 16\)"):
        DeviceKeys(signing, bytes(32), bytes(15))


def test_repr_shows_public_halves_only(three: Three) -> None:
    assert repr(three.account) == f"AccountKey(public={three.account.public.hex()}, seed=<redacted>)"
    assert repr(three.tenant) == f"TenantAdminKey(public={three.tenant.public.hex()}, seed=<redacted>)"
    device = three.device
    assert repr(device) == (
        f"DeviceKeys(public={device.public.hex()}, dh_public={device.dh_public.hex()}, "
        f"mailbox={device.mailbox.hex()}, private=<redacted>)"
    )


def test_secrets_are_the_private_halves(three: Three) -> None:
    stored = three.device.to_bytes()
    assert [name for name, _ in three.device.secrets()] == ["device signing seed", "device identity key"]
    assert all(len(key) == 32 and key in stored for _, key in three.device.secrets())
    assert x_public(three.device.secrets()[1][1]) == three.device.dh_public


def test_lists_follow_each_other(three: Three) -> None:
    first = three.account.first_list("ana@acme.example", [three.device.entry])
    second_device = DeviceKeys.generate(SeededEntropy("second"))
    second = three.account.next_list(first, [three.device.entry, second_device.entry])
    older, newer = verify_signed_list(first), verify_signed_list(second)
    assert (older.version, newer.version) == (1, 2)
    check_follows(newer, older, list_hash(first))
    assert newer.entry_of(second_device.public) == second_device.entry


def test_next_list_after_a_list_of_another_account_key_is_refused(three: Three) -> None:
    other = AccountKey.generate(SeededEntropy("other")).first_list("ana@acme.example", [three.device.entry])
    with pytest.raises(FormatError, match="is of another account key"):
        three.account.next_list(other, [three.device.entry])


def test_next_list_after_a_forged_list_is_refused(three: Three) -> None:
    first = three.account.first_list("ana@acme.example", [three.device.entry])
    forged = SignedList(first.list, bytes([first.signature[0] ^ 1]) + first.signature[1:])
    with pytest.raises(SignatureError):
        three.account.next_list(forged, [three.device.entry])


def test_list_that_names_a_device_twice_or_none_is_refused(three: Three) -> None:
    with pytest.raises(FormatError, match="names a device_key twice"):
        three.account.first_list("ana@acme.example", [three.device.entry] * 2)


def test_token_verifies_until_its_date(three: Three) -> None:
    token = three.tenant.activate("ana@acme.example", NOW_S, SeededEntropy("token"))
    activation = verify_token(token, three.tenant.public, NOW_S)
    assert (activation.tenant, activation.account) == ("acme.example", "ana@acme.example")
    with pytest.raises(FormatError, match="is past its date"):
        verify_token(token, three.tenant.public, NOW_S + 1)
    with pytest.raises(SignatureError):
        verify_token(token, three.account.public, NOW_S)


@pytest.mark.parametrize("account", ["ana", "Ana@acme.example", "@acme.example", "ana@-acme.example"])
def test_token_for_no_address_is_refused(three: Three, account: str) -> None:
    with pytest.raises(FormatError):
        three.tenant.activate(account, NOW_S)


@pytest.mark.parametrize("not_after", [-1, 2**63])
def test_token_with_no_time_is_refused(three: Three, not_after: int) -> None:
    with pytest.raises(FormatError, match="not_after: is not a time"):
        three.tenant.activate("ana@acme.example", not_after)
