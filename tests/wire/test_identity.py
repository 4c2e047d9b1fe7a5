"""Accounts, device lists, tokens and prekeys (protocol.md sections 1.6 and 2)."""

import pytest
from hypothesis import given
from msgspec.structs import replace

from tests.wire.strategies import accounts
from wire.codec import encode
from wire.errors import FormatError, SignatureError
from wire.identity import (
    NO_PREVIOUS,
    Activation,
    DeviceEntry,
    DeviceList,
    SignedList,
    Token,
    check_account,
    check_domain,
    check_follows,
    device_tag,
    domain_of,
    list_hash,
    sign_activation,
    sign_list,
    verify_signed_list,
    verify_token,
)
from wire.prekeys import (
    Bundle,
    KemPrekey,
    OneTimePrekey,
    Prekeys,
    SignedPrekey,
    kem_prekey_signed_bytes,
    one_time_prekey_signed_bytes,
    signed_prekey_signed_bytes,
    verify_bundle,
    verify_prekeys,
)
from wire.signing import SigningKey

ACCOUNT_KEY = SigningKey(b"a" * 32)
DEVICE_KEY = SigningKey(b"d" * 32)
ADMIN_KEY = SigningKey(b"t" * 32)
ENTRY = DeviceEntry(DEVICE_KEY.public, b"x" * 32, b"m" * 16)
OTHER = DeviceEntry(SigningKey(b"e" * 32).public, b"y" * 32, b"n" * 16)
FIRST = DeviceList("ana@acme.example", 1, NO_PREVIOUS, ACCOUNT_KEY.public, (ENTRY,))


def second_list(**changes: object) -> DeviceList:
    signed = sign_list(ACCOUNT_KEY, FIRST)
    return replace(FIRST, version=2, previous=list_hash(signed), devices=(ENTRY, OTHER), **changes)


@given(accounts)
def test_addresses_of_the_grammar_are_taken(account: str) -> None:
    assert check_account(account) == account
    assert "@" not in domain_of(account)


@pytest.mark.parametrize(
    "account",
    ["", "ana", "@acme.example", "ana@", "Ana@acme.example", "ana@acme..example", "ana@-acme.example",
     "ana@acme-.example",     "a b@acme.example", "ana@acme.example\n", "änn@acme.example", "ana@bob@acme.example",
     "a" * 65 + "@acme.example",
     "a@" + "b" * 64, "ana@" + ".".join(["b" * 60] * 5)],
)  # fmt: skip
def test_other_addresses_are_refused_by_name(account: str) -> None:
    with pytest.raises(FormatError) as caught:
        check_account(account)
    assert caught.value.field in {"account", "domain"}


def test_a_domain_has_its_own_limit() -> None:
    with pytest.raises(FormatError, match="limit 253"):
        check_domain(".".join(["b" * 50] * 6))


def test_a_signed_list_verifies_and_keeps_its_bytes() -> None:
    signed = sign_list(ACCOUNT_KEY, FIRST)
    assert verify_signed_list(signed) == FIRST
    assert signed.list == encode(FIRST)
    assert FIRST.entry_of(DEVICE_KEY.public) == ENTRY
    assert FIRST.entry_of(bytes(32)) is None


def test_a_list_signed_by_somebody_else_is_refused() -> None:
    with pytest.raises(FormatError, match="another account key"):
        sign_list(DEVICE_KEY, FIRST)
    forged = SignedList(encode(FIRST), DEVICE_KEY.sign("device-list", encode(FIRST)))
    with pytest.raises(SignatureError):
        verify_signed_list(forged)


def test_a_ghost_device_added_to_a_signed_list_is_refused() -> None:
    signed = sign_list(ACCOUNT_KEY, FIRST)
    ghost = SignedList(encode(replace(FIRST, devices=(ENTRY, OTHER))), signed.signature)
    with pytest.raises(SignatureError):
        verify_signed_list(ghost)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"devices": (ENTRY, ENTRY)}, "device_key twice"),
        ({"devices": (ENTRY, replace(OTHER, dh_key=ENTRY.dh_key))}, "dh_key twice"),
        ({"devices": (ENTRY, replace(OTHER, mailbox=ENTRY.mailbox))}, "mailbox twice"),
        ({"version": 2}, "only version 1"),
        ({"previous": b"p" * 32}, "only version 1"),
        ({"account": "Ana@acme.example"}, "lower-case"),
    ],
)
def test_lists_of_wrong_form_are_neither_signed_nor_taken(changes: dict[str, object], problem: str) -> None:
    wrong = replace(FIRST, **changes)
    with pytest.raises(FormatError, match=problem):
        sign_list(ACCOUNT_KEY, wrong)
    signed = SignedList(encode(wrong), ACCOUNT_KEY.sign("device-list", encode(wrong)))
    with pytest.raises(FormatError, match=problem):
        verify_signed_list(signed)


def test_the_next_version_follows() -> None:
    check_follows(second_list(), FIRST, list_hash(sign_list(ACCOUNT_KEY, FIRST)))


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"account": "bob@acme.example"}, "another account"),
        ({"account_key": DEVICE_KEY.public}, "another account key"),
        ({"version": 3}, "version 3, which does not follow 1"),
        ({"version": 1}, "version 1, which does not follow 1"),
        ({"previous": b"p" * 32}, "does not name the version before it"),
    ],
)
def test_a_version_that_does_not_follow_is_refused(changes: dict[str, object], problem: str) -> None:
    newer = replace(second_list(), **changes)
    with pytest.raises(FormatError, match=problem):
        check_follows(newer, FIRST, list_hash(sign_list(ACCOUNT_KEY, FIRST)))


ACTIVATION = Activation("acme.example", "ana@acme.example", b"n" * 16, 1_000)


def test_a_token_verifies_until_its_date() -> None:
    token = sign_activation(ADMIN_KEY, ACTIVATION)
    assert verify_token(token, ADMIN_KEY.public, 1_000) == ACTIVATION
    with pytest.raises(FormatError, match=r"is past its date \(limit 1000\)"):
        verify_token(token, ADMIN_KEY.public, 1_001)


def test_a_token_of_another_tenant_or_admin_is_refused() -> None:
    with pytest.raises(FormatError, match="another domain"):
        sign_activation(ADMIN_KEY, replace(ACTIVATION, tenant="globex.example"))
    token = sign_activation(ADMIN_KEY, ACTIVATION)
    with pytest.raises(SignatureError):
        verify_token(token, ACCOUNT_KEY.public, 1)
    changed = Token(encode(replace(ACTIVATION, account="eve@acme.example")), token.signature)
    with pytest.raises(SignatureError):
        verify_token(changed, ADMIN_KEY.public, 1)


def test_a_device_tag_is_not_the_key() -> None:
    assert len(device_tag(DEVICE_KEY.public)) == 16
    assert device_tag(DEVICE_KEY.public) not in DEVICE_KEY.public


def signed_prekeys(signer: SigningKey = DEVICE_KEY) -> Prekeys:
    spk_id, key, kem = b"s" * 16, b"k" * 32, b"q" * 1_184
    one_time = tuple(
        OneTimePrekey(
            bytes([n]) * 16,
            key,
            kem,
            signer.sign("one-time-prekey", one_time_prekey_signed_bytes(bytes([n]) * 16, key, kem)),
        )
        for n in range(2)
    )
    return Prekeys(
        DEVICE_KEY.public,
        SignedPrekey(spk_id, key, signer.sign("signed-prekey", signed_prekey_signed_bytes(spk_id, key))),
        KemPrekey(spk_id, kem, signer.sign("kem-prekey", kem_prekey_signed_bytes(spk_id, kem))),
        one_time,
    )


def bundle_of(prekeys: Prekeys) -> Bundle:
    return Bundle(prekeys.device_key, prekeys.signed_prekey, prekeys.kem_prekey, prekeys.one_time[:1])


def test_prekeys_of_the_device_verify() -> None:
    verify_prekeys(signed_prekeys())
    verify_bundle(bundle_of(signed_prekeys()))


def test_prekeys_signed_by_another_key_are_refused() -> None:
    with pytest.raises(SignatureError):
        verify_prekeys(signed_prekeys(ACCOUNT_KEY))
    with pytest.raises(SignatureError):
        verify_bundle(bundle_of(signed_prekeys(ACCOUNT_KEY)))


def test_each_swapped_prekey_is_refused() -> None:
    prekeys = signed_prekeys()
    one_time = prekeys.one_time[0]
    for swapped in (
        replace(prekeys, signed_prekey=replace(prekeys.signed_prekey, key=b"z" * 32)),
        replace(prekeys, kem_prekey=replace(prekeys.kem_prekey, key=b"z" * 1_184)),
        replace(prekeys, one_time=(replace(one_time, x_key=b"z" * 32),)),
        replace(prekeys, one_time=(replace(one_time, kem_key=b"z" * 1_184),)),
        replace(prekeys, one_time=(replace(one_time, id=b"z" * 16),)),
    ):
        with pytest.raises(SignatureError):
            verify_prekeys(swapped)
        with pytest.raises(SignatureError):
            verify_bundle(bundle_of(swapped))


def test_prekeys_that_do_not_belong_together_are_refused() -> None:
    prekeys = signed_prekeys()
    with pytest.raises(FormatError, match="does not belong"):
        verify_prekeys(replace(prekeys, kem_prekey=replace(prekeys.kem_prekey, id=b"z" * 16)))
    with pytest.raises(FormatError, match="an id twice"):
        verify_prekeys(replace(prekeys, one_time=prekeys.one_time[:1] * 2))
