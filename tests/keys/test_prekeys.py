"""Prekeys: rotation, grace, replenishment, erasure, replay (protocol.md section 2.4)."""

import pytest

from keys.errors import HandshakeError, HandshakeReplayed, PrekeyUnknown
from keys.identity import DeviceKeys
from keys.prekeys import GENERATIONS_MAX, ONE_TIME_HALVES_MAX, PrekeyRing
from tests.keys.people import NOW_S, SeededEntropy
from wire.errors import FormatError
from wire.hashing import KeyRole
from wire.limits import PREKEY_GRACE_S, PREKEY_ROTATION_S
from wire.prekeys import verify_one_time_prekey, verify_prekeys

HANDSHAKE = b"h" * 16


@pytest.fixture
def device() -> DeviceKeys:
    return DeviceKeys.generate(SeededEntropy("prekeys"))


def make(device: DeviceKeys, one_time: int = 2) -> PrekeyRing:
    return PrekeyRing.generate(device, NOW_S, one_time, SeededEntropy("ring"))[0]


def test_upload_verifies_and_its_halves_are_known(device: DeviceKeys) -> None:
    ring, upload = PrekeyRing.generate(device, NOW_S, 3, SeededEntropy("ring"))
    verify_prekeys(upload)
    assert upload.device_key == device.public
    assert len(upload.one_time) == 3
    last_resort = ring.halves(upload.signed_prekey.id)
    assert last_resort.signed_public == upload.signed_prekey.key
    assert (last_resort.kem_role, last_resort.one_time_private) == (KeyRole.LAST_RESORT_KEM_PREKEY, b"")
    for prekey in upload.one_time:
        assert prekey.id in ring
        assert ring.halves(prekey.id).kem_role is KeyRole.ONE_TIME_KEM_PREKEY


def test_default_upload_has_the_most_that_an_upload_may_have(device: DeviceKeys) -> None:
    upload = PrekeyRing.generate(device, NOW_S, entropy=SeededEntropy("ring"))[1]
    assert len(upload.one_time) == 64
    with pytest.raises(FormatError, match=r"one-time prekeys: are 65 \(limit 64\)"):
        PrekeyRing.generate(device, NOW_S, 65)


def test_one_time_half_is_erased_at_first_use(device: DeviceKeys) -> None:
    ring, upload = PrekeyRing.generate(device, NOW_S, 1, SeededEntropy("ring"))
    half = ring.halves(upload.one_time[0].id)
    ring.consume(upload.one_time[0].id, HANDSHAKE)
    assert upload.one_time[0].id not in ring
    assert half.one_time_private not in ring.to_bytes()
    assert half.kem_seed not in ring.to_bytes()
    for use in (ring.consume, ring.check_fresh):
        with pytest.raises(PrekeyUnknown):
            use(upload.one_time[0].id, HANDSHAKE)
    with pytest.raises(PrekeyUnknown):
        ring.halves(upload.one_time[0].id)


def test_replayed_handshake_on_a_last_resort_prekey_is_refused_after_a_restart_too(device: DeviceKeys) -> None:
    ring, upload = PrekeyRing.generate(device, NOW_S, 0, SeededEntropy("ring"))
    ring.consume(upload.signed_prekey.id, HANDSHAKE)
    ring.consume(upload.signed_prekey.id, b"i" * 16)
    for again in (ring, PrekeyRing.from_bytes(ring.to_bytes(), device)):
        with pytest.raises(HandshakeReplayed):
            again.consume(upload.signed_prekey.id, HANDSHAKE)


def test_handshakes_remembered_on_a_last_resort_prekey_are_bounded(
    device: DeviceKeys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("keys.prekeys.ACCEPTED_MAX", 2)
    ring, upload = PrekeyRing.generate(device, NOW_S, 1, SeededEntropy("ring"))
    for handshake in (b"1" * 16, b"2" * 16):
        ring.consume(upload.signed_prekey.id, handshake)
    with pytest.raises(HandshakeError, match="last-resort prekey: 2 sessions were accepted on it"):
        ring.consume(upload.signed_prekey.id, b"3" * 16)
    ring.consume(upload.one_time[0].id, b"4" * 16)  # one-time prekeys are not affected
    ring.consume(ring.rotate(NOW_S, 0).signed_prekey.id, b"3" * 16)


def test_rotation_is_due_after_seven_days(device: DeviceKeys) -> None:
    ring = make(device)
    assert not ring.rotation_due(NOW_S + PREKEY_ROTATION_S - 1)
    assert ring.rotation_due(NOW_S + PREKEY_ROTATION_S)


def test_old_generation_lives_through_its_grace_and_is_then_erased(device: DeviceKeys) -> None:
    ring, upload = PrekeyRing.generate(device, NOW_S, 2, SeededEntropy("ring"))
    private = ring.halves(upload.signed_prekey.id).signed_private
    rotated_s = NOW_S + PREKEY_ROTATION_S
    newer = ring.rotate(rotated_s, 1)
    verify_prekeys(newer)
    assert newer.signed_prekey.id != upload.signed_prekey.id
    assert ring.erase_expired(rotated_s + PREKEY_GRACE_S) == 0
    assert upload.signed_prekey.id in ring
    assert ring.erase_expired(rotated_s + PREKEY_GRACE_S + 1) == 1
    for prekey_id in (upload.signed_prekey.id, *(prekey.id for prekey in upload.one_time)):
        assert prekey_id not in ring
    assert private not in ring.to_bytes()
    assert newer.signed_prekey.id in ring


def test_rotation_erases_what_is_past_its_grace(device: DeviceKeys) -> None:
    ring, upload = PrekeyRing.generate(device, NOW_S, 0, SeededEntropy("ring"))
    ring.rotate(NOW_S + PREKEY_ROTATION_S, 0)
    ring.rotate(NOW_S + 2 * PREKEY_ROTATION_S + 1, 0)
    assert upload.signed_prekey.id not in ring


def test_device_that_was_away_keeps_its_published_generation_through_the_grace(device: DeviceKeys) -> None:
    ring, upload = PrekeyRing.generate(device, NOW_S, 1, SeededEntropy("ring"))
    back_s = NOW_S + 25 * 86_400
    ring.rotate(back_s, 1)
    assert upload.signed_prekey.id in ring  # senders were given it until now


def test_current_generation_is_never_erased(device: DeviceKeys) -> None:
    ring, upload = PrekeyRing.generate(device, NOW_S, 1, SeededEntropy("ring"))
    assert ring.erase_expired(NOW_S + 365 * 86_400) == 0
    assert upload.signed_prekey.id in ring


def test_forced_rotations_are_bounded(device: DeviceKeys) -> None:
    ring, upload = PrekeyRing.generate(device, NOW_S, 0, SeededEntropy("ring"))
    for _ in range(GENERATIONS_MAX):
        ring.rotate(NOW_S, 0)
    assert upload.signed_prekey.id not in ring
    assert PrekeyRing.from_bytes(ring.to_bytes(), device).to_bytes() == ring.to_bytes()


def test_replenishment_begins_below_twenty(device: DeviceKeys) -> None:
    ring = make(device)
    assert ring.replenish(20) == ()
    added = ring.replenish(19)
    assert len(added) == 45
    for prekey in added:
        verify_one_time_prekey(device.public, prekey)
        assert prekey.id in ring


def test_halves_that_nobody_uses_are_bounded(device: DeviceKeys) -> None:
    ring, upload = PrekeyRing.generate(device, NOW_S, 1, SeededEntropy("ring"))
    added = [prekey.id for _ in range(9) for prekey in ring.replenish(0)]
    assert upload.one_time[0].id not in ring
    assert sum(prekey_id in ring for prekey_id in added) == ONE_TIME_HALVES_MAX


def test_ring_survives_storage(device: DeviceKeys) -> None:
    ring, upload = PrekeyRing.generate(device, NOW_S, 2, SeededEntropy("ring"))
    ring.rotate(NOW_S + PREKEY_ROTATION_S, 1)
    ring.consume(upload.signed_prekey.id, HANDSHAKE)
    again = PrekeyRing.from_bytes(ring.to_bytes(), device)
    assert again.to_bytes() == ring.to_bytes()
    assert again.halves(upload.one_time[1].id) == ring.halves(upload.one_time[1].id)


def test_damaged_ring_is_refused(device: DeviceKeys) -> None:
    stored = make(device).to_bytes()
    with pytest.raises(FormatError):
        PrekeyRing.from_bytes(stored[:-1], device)
    with pytest.raises(FormatError, match="is of another kind"):
        PrekeyRing.from_bytes(stored.replace(b"prekey-ring/1", b"prekey-ring/2"), device)


def test_secrets_are_every_private_half_that_is_kept(device: DeviceKeys) -> None:
    ring, upload = PrekeyRing.generate(device, NOW_S, 2, SeededEntropy("ring"))
    ring.rotate(NOW_S, 1)
    secrets = [key for _, key in ring.secrets()]
    assert len(set(secrets)) == len(secrets) == 2 * (2 + 2 + 1)
    half = ring.halves(upload.one_time[0].id)
    assert {half.signed_private, half.one_time_private, half.kem_seed} <= set(secrets)
    ring.consume(upload.one_time[0].id, HANDSHAKE)
    assert half.one_time_private not in [key for _, key in ring.secrets()]


def test_repr_shows_no_private_half(device: DeviceKeys) -> None:
    ring, upload = PrekeyRing.generate(device, NOW_S, 2, SeededEntropy("ring"))
    assert repr(ring) == f"PrekeyRing(device={device.public.hex()}, one_time=[2], private=<redacted>)"
    assert repr(ring.halves(upload.signed_prekey.id)) == (
        f"PrekeyHalves(signed_public={upload.signed_prekey.key.hex()}, "
        "kem_role=<KeyRole.LAST_RESORT_KEM_PREKEY: 7>, private=<redacted>)"
    )
    assert repr(ring._generations[0]).endswith("one_time=2, private=<redacted>)")


def test_an_upload_published_again_has_fresh_one_time_prekeys_and_the_old_ones_still_answer() -> None:
    device = DeviceKeys.generate()
    ring, first = PrekeyRing.generate(device, 0, one_time=3)
    again = ring.publish_again(3)
    assert (again.signed_prekey, again.kem_prekey) == (first.signed_prekey, first.kem_prekey)
    verify_prekeys(again)
    ids = {prekey.id for upload in (first, again) for prekey in upload.one_time}
    assert len(ids) == 6
    restored = PrekeyRing.from_bytes(ring.to_bytes(), device)
    assert all(prekey_id in restored for prekey_id in ids)
