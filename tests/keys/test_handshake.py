"""The handshake and its attacks (protocol.md section 4.1)."""

import hashlib
from collections.abc import Callable

import msgspec
import pytest

from keys.agreement import x_public
from keys.errors import (
    AuthenticationFailed,
    DecryptionError,
    HandshakeError,
    HandshakeReplayed,
    HeaderUnknown,
    PrekeyUnknown,
    SenderRefused,
    SharedSecretZero,
)
from keys.handshake import (
    Inbound,
    context_of,
    first_offset,
    initiate,
    open_inbound,
    seal_key_of,
    sealed_sender,
    secrets_of,
)
from keys.identity import AccountKey, DeviceKeys
from keys.message import aead_seal, open_with_message_key
from keys.session import Session, opening_of_first
from tests.keys.people import NOW_S, Person, SeededEntropy, envelope_id
from wire.errors import FormatError, SignatureError
from wire.hashing import KeyRole, label
from wire.identity import DeviceEntry, DeviceList, SignedList, verify_signed_list
from wire.limits import SEALED_STEP_BYTES
from wire.prekeys import Bundle, KemPrekey, OneTimePrekey, SignedPrekey, one_time_prekey_signed_bytes


@pytest.fixture
def ana() -> Person:
    return Person.make("ana")


@pytest.fixture
def ben() -> Person:
    return Person.make("ben", one_time=2)


def first_body(ana: Person, ben: Person, one_time: bool = True) -> bytes:
    return ana.initiate(ben, one_time).encrypt(b"hello", envelope_id(1))


@pytest.mark.parametrize("one_time", [True, False])
def test_recipient_learns_who_sends_and_derives_the_same_secrets(ana: Person, ben: Person, one_time: bool) -> None:
    outbound = initiate(ana.device, ana.signed_list, ben.device.entry, ben.bundle(one_time), ana.entropy)
    body = outbound.prekey_id + bytes(112) + outbound.prefix + bytes(272)
    inbound = open_inbound(ben.device, ben.ring, body)
    assert inbound.secrets == outbound.secrets
    assert inbound.sender_device == ana.device.public
    assert inbound.sender_list == verify_signed_list(ana.signed_list)
    assert inbound.sender_signed_list == ana.signed_list


def test_prekey_id_in_the_body_is_the_one_time_prekeys_else_the_signed_prekeys(ana: Person, ben: Person) -> None:
    assert first_body(ana, ben)[:16] == ben.upload.one_time[0].id
    assert first_body(ana, ben, one_time=False)[:16] == ben.upload.signed_prekey.id


def test_first_body_names_no_sender(ana: Person, ben: Person) -> None:
    body = first_body(ana, ben)
    for name in (ana.device.public, ana.device.dh_public, ana.account_key.public, ana.device.mailbox, b"ana@acme"):
        assert name not in body


def test_context_hashes_every_key_with_type_and_role() -> None:
    device, identity, signed, one_time = (bytes([value]) * 32 for value in range(4))
    kem, ephemeral, ciphertext = b"k" * 1_184, b"e" * 32, b"c" * 1_088
    expected = hashlib.sha256(
        b"blindpost/v1/pqxdh-context\0"
        + (b"\x08" + device + b"\x01" + identity + b"\x02" + signed + b"\x03" + one_time)
        + (b"\x06" + kem + b"\x04" + ephemeral + ciphertext)
    ).digest()
    roles = KeyRole.ONE_TIME_KEM_PREKEY, KeyRole.LAST_RESORT_KEM_PREKEY
    one, last = (context_of(device, identity, signed, one_time, role, kem, ephemeral, ciphertext) for role in roles)
    assert one == expected
    assert one != last


@pytest.mark.parametrize("at", [0, 15, 128, 159, 160, 1_247, 1_250, 1_300])
def test_altered_handshake_is_refused_and_erases_nothing(ana: Person, ben: Person, at: int) -> None:
    body = bytearray(first_body(ana, ben))
    body[at] ^= 1
    before = ben.ring.to_bytes()
    with pytest.raises((PrekeyUnknown, AuthenticationFailed)):
        ben.accept(bytes(body), 1)
    assert ben.ring.to_bytes() == before


@pytest.mark.parametrize("at", [16, 48, 72, -1])
def test_altered_message_of_a_first_body_is_refused_and_erases_nothing(ana: Person, ben: Person, at: int) -> None:
    body = bytearray(first_body(ana, ben))
    body[at] ^= 1
    before = ben.ring.to_bytes()
    with pytest.raises(DecryptionError):
        ben.accept(bytes(body), 1)
    assert ben.ring.to_bytes() == before
    assert ben.accept(first_body(ana, ben), 1).content == b"hello"


def test_downgrade_to_the_last_resort_prekey_on_the_way_is_refused(ana: Person, ben: Person) -> None:
    body = first_body(ana, ben)
    downgraded = ben.upload.signed_prekey.id + body[16:]
    with pytest.raises(AuthenticationFailed, match="sealed sender"):
        ben.accept(downgraded, 1)


def test_first_body_for_another_device_is_refused(ana: Person, ben: Person) -> None:
    eve = Person.make("eve")
    with pytest.raises(PrekeyUnknown):
        eve.accept(first_body(ana, ben), 1)
    # A recipient who holds the prekeys but is another device (a cloned ring) does not open it either.
    with pytest.raises(AuthenticationFailed, match="sealed sender"):
        open_inbound(eve.device, ben.ring, first_body(ana, ben))


def test_first_body_under_another_envelope_id_is_refused(ana: Person, ben: Person) -> None:
    with pytest.raises(AuthenticationFailed, match="content"):
        ben.accept(first_body(ana, ben), 2)


def test_replay_of_a_first_message_with_a_one_time_prekey_is_refused(ana: Person, ben: Person) -> None:
    body = first_body(ana, ben)
    ben.accept(body, 1)
    with pytest.raises(PrekeyUnknown):
        ben.accept(body, 1)


def test_replay_of_a_first_message_without_a_one_time_prekey_is_refused(ana: Person, ben: Person) -> None:
    body = first_body(ana, ben, one_time=False)
    ben.accept(body, 1)
    with pytest.raises(HandshakeReplayed):
        ben.accept(body, 1)


def test_second_message_of_an_accepted_handshake_starts_no_second_session(ana: Person, ben: Person) -> None:
    session = ana.initiate(ben, one_time=False)
    ben.accept(session.encrypt(b"one", envelope_id(1)), 1)
    with pytest.raises(HandshakeReplayed):
        ben.accept(session.encrypt(b"two", envelope_id(2)), 2)


def test_sender_who_is_not_the_pinned_one_is_refused_and_nothing_is_erased(ana: Person, ben: Person) -> None:
    def refuse(inbound: Inbound) -> None:
        assert inbound.sender_list.account == "ana@acme.example"
        raise SenderRefused("another account key is pinned")

    body, before = first_body(ana, ben), ben.ring.to_bytes()
    with pytest.raises(SenderRefused, match="sender: another account key is pinned"):
        Session.accept(ben.device, ben.ring, body, envelope_id(1), NOW_S, check_sender=refuse)
    assert ben.ring.to_bytes() == before


# ---------------------------------------------------------------------------------------------- bundles


def replaced(bundle: Bundle, **changes: object) -> Bundle:
    return msgspec.structs.replace(bundle, **changes)


def with_other_signature(bundle: Bundle, which: str) -> Bundle:
    prekey = bundle.one_time[0] if which == "one_time" else getattr(bundle, which)
    forged = msgspec.structs.replace(prekey, signature=bytes([prekey.signature[0] ^ 1]) + prekey.signature[1:])
    return replaced(bundle, **{which: (forged,) if which == "one_time" else forged})


@pytest.mark.parametrize("which", ["signed_prekey", "kem_prekey", "one_time"])
def test_bundle_with_a_tampered_signature_is_refused(ana: Person, ben: Person, which: str) -> None:
    bundle = with_other_signature(ben.bundle(), which)
    with pytest.raises(SignatureError):
        initiate(ana.device, ana.signed_list, ben.device.entry, bundle)


def test_bundle_with_the_relays_own_prekey_is_refused(ana: Person, ben: Person) -> None:
    eve = Person.make("eve")
    for bundle in (
        replaced(ben.bundle(), signed_prekey=eve.upload.signed_prekey, kem_prekey=eve.upload.kem_prekey),
        replaced(ben.bundle(), one_time=eve.upload.one_time),
    ):
        with pytest.raises(SignatureError):
            initiate(ana.device, ana.signed_list, ben.device.entry, bundle)
    with pytest.raises(HandshakeError, match="bundle: is of another device"):
        initiate(ana.device, ana.signed_list, ben.device.entry, eve.bundle())


def test_prekey_signed_under_another_type_is_refused(ana: Person, ben: Person) -> None:
    sign = ben.device.signing.sign
    key, kem = ben.upload.signed_prekey.key, ben.upload.kem_prekey.key
    prekey_id = ben.upload.signed_prekey.id
    signed_as_one_time = SignedPrekey(prekey_id, key, sign("signed-prekey", prekey_id + b"\x03" + key))
    last_resort_as_one_time = KemPrekey(prekey_id, kem, sign("kem-prekey", prekey_id + b"\x06" + kem))
    other_label = SignedPrekey(prekey_id, key, sign("one-time-prekey", prekey_id + b"\x02" + key))
    for changes in (
        {"signed_prekey": signed_as_one_time},
        {"kem_prekey": last_resort_as_one_time},
        {"signed_prekey": other_label},
    ):
        with pytest.raises(SignatureError):
            initiate(ana.device, ana.signed_list, ben.device.entry, replaced(ben.bundle(), **changes))


def test_last_resort_key_given_out_as_one_time_is_refused(ana: Person, ben: Person) -> None:
    # The relay has two signatures of ben's over his last-resort keys, and none over them as one-time keys.
    upload = ben.upload
    posing = OneTimePrekey(upload.signed_prekey.id, upload.signed_prekey.key, upload.kem_prekey.key, bytes(64))
    for signature in (upload.signed_prekey.signature, upload.kem_prekey.signature):
        forged = msgspec.structs.replace(posing, signature=signature)
        with pytest.raises(SignatureError):
            initiate(ana.device, ana.signed_list, ben.device.entry, replaced(ben.bundle(), one_time=(forged,)))


def test_kem_prekey_of_another_generation_is_refused(ana: Person, ben: Person) -> None:
    newer = ben.ring.rotate(NOW_S, 0)
    with pytest.raises(FormatError, match="does not belong to the signed prekey"):
        initiate(ana.device, ana.signed_list, ben.device.entry, replaced(ben.bundle(), kem_prekey=newer.kem_prekey))


@pytest.mark.parametrize("which", ["dh_key", "x_key"])
def test_small_order_key_in_list_or_bundle_is_refused(ana: Person, ben: Person, which: str) -> None:
    entry, bundle, zero = ben.device.entry, ben.bundle(), bytes(32)
    if which == "dh_key":
        entry = DeviceEntry(entry.device_key, zero, entry.mailbox)
    else:
        kem = bundle.one_time[0].kem_key
        signed = one_time_prekey_signed_bytes(b"i" * 16, zero, kem)
        signature = ben.device.signing.sign("one-time-prekey", signed)
        bundle = replaced(bundle, one_time=(OneTimePrekey(b"i" * 16, zero, kem, signature),))
    with pytest.raises(SharedSecretZero):
        initiate(ana.device, ana.signed_list, entry, bundle)


def test_small_order_ephemeral_is_refused(ana: Person, ben: Person) -> None:
    body = first_body(ana, ben)
    with pytest.raises(SharedSecretZero):
        ben.accept(body[:128] + bytes(32) + body[160:], 1)


def test_own_list_that_does_not_name_this_device_is_refused(ana: Person, ben: Person) -> None:
    with pytest.raises(HandshakeError, match="own device list: does not name this device"):
        initiate(ana.device, ben.signed_list, ben.device.entry, ben.bundle())


# ---------------------------------------------------------------------------------------------- sealed sender


def forged_first_body(ana: Person, ben: Person, sender: bytes) -> bytes:
    """A first body whose sealed sender is whatever an attacker with good mathematics puts there."""
    made: list[bytes] = []

    def seal(plain: bytes, associated: bytes, nonce: bytes, key: bytes) -> bytes:
        made.append(aead_seal(sender, associated, nonce, key))
        return made[0]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("keys.handshake.aead_seal", seal)
        session = ana.initiate(ben)
    return session.encrypt(b"hello", envelope_id(1))


def test_sender_posing_as_another_device_of_another_account_is_refused(ana: Person, ben: Person) -> None:
    cid = Person.make("cid")
    posing = sealed_sender(cid.device.public, cid.signed_list)  # true words of cid's, but ana has not cid's keys
    with pytest.raises(HeaderUnknown):
        ben.accept(forged_first_body(ana, ben, posing), 1)


def test_sender_whose_device_is_not_on_the_list_is_refused(ana: Person, ben: Person) -> None:
    eve = Person.make("eve")
    with pytest.raises(SenderRefused, match="the device is not on its account's list"):
        ben.accept(forged_first_body(ana, ben, sealed_sender(ana.device.public, eve.signed_list)), 1)


def test_sender_list_with_a_forged_signature_is_refused(ana: Person, ben: Person) -> None:
    forged = SignedList(ana.signed_list.list, bytes(64))
    with pytest.raises(SignatureError):
        ben.accept(forged_first_body(ana, ben, sealed_sender(ana.device.public, forged)), 1)


def test_sender_identity_of_small_order_is_refused(ana: Person, ben: Person) -> None:
    entry = DeviceEntry(ana.device.public, bytes(32), ana.device.mailbox)
    listed = ana.account_key.first_list("ana@acme.example", [entry])
    with pytest.raises(SharedSecretZero):
        ben.accept(forged_first_body(ana, ben, sealed_sender(ana.device.public, listed)), 1)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda plain: plain[:-1] + b"\x01",
        lambda plain: plain + bytes(SEALED_STEP_BYTES),
        lambda plain: b"\x92" + plain[1:].rstrip(b"\0")[:-1] + b"\0\x80" + bytes(20),
        lambda plain: bytes(512),
    ],
)
def test_sealed_sender_with_other_padding_or_encoding_is_refused(
    ana: Person, ben: Person, spoil: Callable[[bytes], bytes]
) -> None:
    spoilt = spoil(sealed_sender(ana.device.public, ana.signed_list))
    spoilt += bytes(-len(spoilt) % SEALED_STEP_BYTES)
    with pytest.raises(FormatError, match="sealed sender"):
        ben.accept(forged_first_body(ana, ben, spoilt), 1)


def test_sealed_sender_is_padded_to_the_next_multiple_of_256(ana: Person) -> None:
    for devices in range(1, 17):
        entries = [DeviceKeys.generate(SeededEntropy(f"device {number}")).entry for number in range(devices)]
        listed = ana.account_key.first_list("ana@acme.example", entries)
        plain = msgspec.msgpack.encode((entries[0].device_key, listed))
        sealed = sealed_sender(entries[0].device_key, listed)
        assert len(sealed) % 256 == 0
        assert 0 < len(sealed) - len(plain) <= 256
        assert sealed.startswith(plain + b"\x80")


def test_sealed_sender_above_4096_bytes_is_refused() -> None:
    with pytest.raises(FormatError, match=r"sealed sender: has 4\d\d\d bytes \(limit 4096\)"):
        sealed_sender(bytes(32), SignedList(bytes(4_096), bytes(64)))


@pytest.mark.parametrize("length", [0, 16, 17, 255, 16 + 257, 16 + 256 * 17, 65_535])
def test_sealed_length_that_none_has_is_refused(ana: Person, ben: Person, length: int) -> None:
    body = first_body(ana, ben)
    with pytest.raises(FormatError, match="sealed sender"):
        first_offset(body[:1_248] + length.to_bytes(2, "big") + body[1_250:])


def test_first_body_that_ends_early_is_refused(ana: Person, ben: Person) -> None:
    body = first_body(ana, ben)
    with pytest.raises(FormatError, match="ends before its content"):
        first_offset(body[: 1_250 + 528])
    with pytest.raises(FormatError, match=r"first body: has 1249 bytes \(limit 1250\)"):
        first_offset(body[:1_249])
    with pytest.raises(FormatError, match=r"body: has 399 bytes \(limit 400\)"):
        first_offset(body[:399])


def test_first_body_that_is_not_accepted_yet_can_be_volunteered(ana: Person, ben: Person) -> None:
    body, before = first_body(ana, ben), ben.ring.to_bytes()
    opening = opening_of_first(ben.device, ben.ring, body, envelope_id(1), NOW_S)
    assert ben.ring.to_bytes() == before
    assert open_with_message_key(body, envelope_id(1), opening) == b"hello"
    assert opening.offset == first_offset(body)
    assert ben.accept(body, 1).content == b"hello"


def test_reprs_show_no_secret(ana: Person, ben: Person) -> None:
    outbound = initiate(ana.device, ana.signed_list, ben.device.entry, ben.bundle(), ana.entropy)
    inbound = open_inbound(ben.device, ben.ring, outbound.prekey_id + bytes(112) + outbound.prefix + bytes(272))
    prekey_id = outbound.prekey_id.hex()
    assert repr(outbound) == f"Outbound(prekey_id={prekey_id}, secrets=<redacted>)"
    sender = ana.device.public.hex()
    assert repr(inbound) == f"Inbound(prekey_id={prekey_id}, sender_device={sender}, secrets=<redacted>)"
    assert repr(inbound.secrets) == "Secrets(<redacted>)"


def test_breaking_every_x25519_secret_alone_gives_no_key(ana: Person, ben: Person) -> None:
    """C4: with all of DH1 to DH4 known and the ML-KEM secret not, the derived keys differ in every part."""
    dhs, context = b"d" * 96, b"c" * 32
    identity, device = x_public(bytes([1]) * 32), b"D" * 32
    guess, truth = b"g" * 32, b"t" * 32
    assert seal_key_of(dhs + guess, context) != seal_key_of(dhs + truth, context)
    guessed = secrets_of(b"1" * 32, dhs + guess, context, identity, device)
    true = secrets_of(b"1" * 32, dhs + truth, context, identity, device)
    assert all(a != b for a, b in zip(guessed, true, strict=True))


def test_seal_key_does_not_depend_on_the_senders_identity_and_the_root_does() -> None:
    one = secrets_of(b"1" * 32, b"s" * 128, b"c" * 32, b"i" * 32, b"d" * 32)
    assert one != secrets_of(b"1" * 32, b"s" * 128, b"c" * 32, b"j" * 32, b"d" * 32)
    assert one != secrets_of(b"1" * 32, b"s" * 128, b"c" * 32, b"i" * 32, b"e" * 32)
    assert one != secrets_of(b"2" * 32, b"s" * 128, b"c" * 32, b"i" * 32, b"d" * 32)
    assert label("pqxdh") != label("pqxdh-seal")


def test_lists_of_sixteen_devices_travel(ben: Person) -> None:
    entropy = SeededEntropy("many")
    account, device = AccountKey.generate(entropy), DeviceKeys.generate(entropy)
    others = [DeviceKeys.generate(entropy).entry for _ in range(15)]
    listed = account.first_list("a" * 64 + "@" + "b" * 63 + ".example", [device.entry, *others])
    session = Session.initiate(device, listed, ben.device.entry, ben.bundle(), entropy)
    accepted = ben.accept(session.encrypt(b"hello", envelope_id(1)), 1)
    assert isinstance(accepted.inbound.sender_list, DeviceList)
    assert len(accepted.inbound.sender_list.devices) == 16
