"""Somebody puts another person's device on a list of their own: whose words are then shown as whose."""

import random
from pathlib import Path

import pytest

from client.attachments import chunks, manifest_content, plan_chunks
from client.content import NO_REPLY, Content, Kind, encode_content, wrap_own_copy
from client.device import Device
from client.link import DeliveryEvent
from client.sessions import Unopened
from keys.chunks import FileKey
from keys.identity import AccountKey, DeviceKeys
from keys.prekeys import PrekeyRing
from keys.session import Session
from tests.client.world import START_S, World, run
from wire.commands import Delivered
from wire.envelope import envelope_id_of
from wire.identity import SignedList, verify_signed_list
from wire.prekeys import Bundle
from wire.signing import SigningKey

ANA, BO, MALLORY = "ana@acme.example", "bo@globex.example", "mallory@acme.example"


class _Borrowed(DeviceKeys):
    """Mallory's X25519 key and mailbox under the *public* device key of somebody else."""

    def __init__(self, victim: bytes, entropy: random.Random) -> None:
        super().__init__(SigningKey(entropy.randbytes(32)), entropy.randbytes(32), entropy.randbytes(16))
        self._victim = victim

    @property
    def public(self) -> bytes:
        return self._victim


def _bundle(ring: PrekeyRing, device: Device) -> Bundle:
    upload = ring.rotate(START_S + 1_000)
    return Bundle(device.state.keys.public, upload.signed_prekey, upload.kem_prekey, upload.one_time[:1])


def _session(device: Device, own: DeviceKeys, own_list: SignedList) -> Session:
    assert device.state.ring is not None
    bundle = _bundle(device.state.ring, device)
    return Session.initiate(own, own_list, device.state.keys.entry, bundle)


def _know(device: Device, signed: SignedList) -> SignedList:
    """The device knows this account already, as after a look-up."""
    assert device.engine.outbox.on_list(verify_signed_list(signed).account, signed)
    return signed


def _delivered(session: Session, content: Content, number: int) -> Delivered:
    envelope_id = envelope_id_of(content.token)
    body = session.encrypt(encode_content(content), envelope_id)
    return Delivered(number, envelope_id, START_S + 86_400, body)


def _chat(rng: random.Random, text: bytes) -> Content:
    return Content(rng.randbytes(16), Kind.CHAT, rng.randbytes(16), START_S * 1_000, NO_REPLY, (BO,), text)


def test_a_device_on_a_second_accounts_list_speaks_for_that_account_only(tmp_path: Path) -> None:
    """Mallory lists Ana's device key beside a key of her own, and never needs Ana's private keys."""

    async def scenario() -> None:
        world, rng = World(tmp_path), random.Random(7)
        async with world.new(BO) as bo:
            await bo.enrolled(30)
            ana = DeviceKeys.generate(rng.randbytes)
            ana_list = _know(bo, AccountKey.generate(rng.randbytes).first_list(ANA, [ana.entry]))
            honest = _session(bo, ana, ana_list)
            borrowed = _Borrowed(ana.public, rng)
            mallory_list = _know(bo, AccountKey.generate(rng.randbytes).first_list(MALLORY, [borrowed.entry]))
            hostile = _session(bo, borrowed, mallory_list)
            mailbox = bo.state.keys.mailbox
            letters = [
                _delivered(honest, _chat(rng, b"from ana"), 1),
                _delivered(hostile, _chat(rng, b"from mallory"), 2),
                _delivered(hostile, _chat(rng, b"mallory again"), 3),
                _delivered(honest, _chat(rng, b"ana again"), 4),
            ]
            for letter in letters:
                bo.engine.inbox.on_delivery(DeliveryEvent(mailbox, (letter,)), 0.0)
            shown = {message.payload: message.account for message in await bo.receive(5)}
            assert shown == {
                b"from ana": ANA,
                b"from mallory": MALLORY,
                b"mallory again": MALLORY,
                b"ana again": ANA,
            }
            # What Bo writes to Ana goes on in Ana's session, although Mallory's device key is the same.
            with bo.state.store.step() as step:
                body = bo.state.sessions.encrypt(step, ANA, ana.public, b"to ana", bytes(16))
            assert honest.decrypt(body, bytes(16), START_S) == b"to ana"

    run(scenario)


def test_an_own_copy_is_not_taken_from_an_account_that_lists_our_other_device(tmp_path: Path) -> None:
    async def scenario() -> None:
        world, rng = World(tmp_path), random.Random(8)
        async with world.new(BO) as bo:
            await bo.enrolled(30)
            # Bo's other device, on Bo's list; Mallory borrows its key.
            other = DeviceKeys.generate(rng.randbytes)
            bo.engine.enrolment.next_list([bo.state.keys.entry, other.entry])
            borrowed = _Borrowed(other.public, rng)
            mallory_list = _know(bo, AccountKey.generate(rng.randbytes).first_list(MALLORY, [borrowed.entry]))
            hostile = _session(bo, borrowed, mallory_list)
            mailbox = bo.state.keys.mailbox
            own = wrap_own_copy(_chat(rng, b"I, Bo, wrote this"), (ANA,), rng.randbytes(16))
            for letter in (_delivered(hostile, _chat(rng, b"hello"), 1), _delivered(hostile, own, 2)):
                bo.engine.inbox.on_delivery(DeliveryEvent(mailbox, (letter,)), 0.0)
            assert [(message.account, message.payload) for message in bo.kept()] == [(MALLORY, b"hello")]

    run(scenario)


def test_sessions_end_with_the_account_that_dropped_the_device_only(tmp_path: Path) -> None:
    async def scenario() -> None:
        world, rng = World(tmp_path), random.Random(9)
        async with world.new(BO) as bo:
            await bo.enrolled(30)
            ana = DeviceKeys.generate(rng.randbytes)
            honest = _session(bo, ana, _know(bo, AccountKey.generate(rng.randbytes).first_list(ANA, [ana.entry])))
            borrowed, spare = _Borrowed(ana.public, rng), DeviceKeys.generate(rng.randbytes)
            key = AccountKey.generate(rng.randbytes)
            first = _know(bo, key.first_list(MALLORY, [borrowed.entry, spare.entry]))
            hostile = _session(bo, borrowed, first)
            mailbox = bo.state.keys.mailbox
            for letter in (_delivered(honest, _chat(rng, b"1"), 1), _delivered(hostile, _chat(rng, b"2"), 2)):
                bo.engine.inbox.on_delivery(DeliveryEvent(mailbox, (letter,)), 0.0)
            assert bo.engine.outbox.on_list(MALLORY, key.next_list(first, [spare.entry]))
            late = _delivered(hostile, _chat(rng, b"mallory's device has left"), 3)
            with bo.state.store.step() as step, pytest.raises(Unopened):
                bo.state.sessions.open(step, late.body, late.envelope_id)
            bo.engine.inbox.on_delivery(DeliveryEvent(mailbox, (_delivered(honest, _chat(rng, b"3"), 4),)), 0.0)
            assert [message.payload for message in bo.kept()] == [b"1", b"2", b"3"]

    run(scenario)


def test_a_large_own_copy_of_what_is_no_large_message_is_told_and_harms_nothing(tmp_path: Path) -> None:
    """It once ended the device's loop, and again at each delivery."""

    async def scenario() -> None:
        world, rng = World(tmp_path), random.Random(11)
        async with world.new(BO) as bo:
            await bo.enrolled(30)
            other = DeviceKeys.generate(rng.randbytes)
            own_list = bo.engine.enrolment.next_list([bo.state.keys.entry, other.entry])
            session = _session(bo, other, own_list)
            notice = Content(
                rng.randbytes(16), Kind.DELIVERED, rng.randbytes(16), START_S * 1_000, NO_REPLY, (), bytes(16)
            )
            _deliver_large(bo, session, wrap_own_copy(notice, (ANA,), bytes(16)), rng)
            assert bo.kept() == []
            assert any("own_copy.kind" in told.text for told in bo.notices())

    run(scenario)


def test_a_large_chat_that_is_not_utf8_is_not_kept(tmp_path: Path) -> None:
    async def scenario() -> None:
        world, rng = World(tmp_path), random.Random(12)
        async with world.new(BO) as bo:
            await bo.enrolled(30)
            ana = DeviceKeys.generate(rng.randbytes)
            session = _session(bo, ana, _know(bo, AccountKey.generate(rng.randbytes).first_list(ANA, [ana.entry])))
            _deliver_large(bo, session, _chat(rng, b"\xff" * 70_000), rng)
            assert bo.kept() == []
            assert any("UTF-8" in told.text for told in bo.notices())

    run(scenario)


def _deliver_large(bo: Device, session: Session, content: Content, rng: random.Random) -> None:
    """The manifest of a content, then its chunks."""
    file_key = FileKey(rng.randbytes(32))
    manifest = manifest_content(content, file_key.to_bytes(), rng.randbytes(16))
    letters = [_delivered(session, manifest, 1)]
    plan = plan_chunks(len(content.payload))
    for index, chunk in enumerate(chunks(content.payload, plan)):
        body = file_key.seal(index, chunk, session.own_device, session.peer_device)
        letters.append(Delivered(2 + index, file_key.envelope_id(index), START_S + 86_400, body))
    for letter in letters:
        bo.engine.inbox.on_delivery(DeliveryEvent(bo.state.keys.mailbox, (letter,)), 0.0)


def test_junk_under_a_known_ek_makes_a_session_stale_once_an_hour_at_most(tmp_path: Path) -> None:
    """The relay sees the EK of first bodies: whoever knows it must not make us use up one-time prekeys."""

    async def scenario() -> None:
        world, rng = World(tmp_path), random.Random(13)
        async with world.new(BO) as bo:
            await bo.enrolled(30)
            ana = DeviceKeys.generate(rng.randbytes)
            ana_list = _know(bo, AccountKey.generate(rng.randbytes).first_list(ANA, [ana.entry]))
            session = _session(bo, ana, ana_list)
            letter = _delivered(session, _chat(rng, b"1"), 1)
            sessions, mailbox = bo.state.sessions, bo.state.keys.mailbox
            bo.engine.inbox.on_delivery(DeliveryEvent(mailbox, (letter,)), 0.0)
            stale = []
            for number in (2, 3):
                junk = Delivered(number, rng.randbytes(16), letter.expiry, letter.body)
                bo.engine.inbox.on_delivery(DeliveryEvent(mailbox, (junk,)), 0.0)
                stale.append(not sessions.can_send(ANA, ana.public))
                with bo.state.store.step() as step:
                    sessions.initiate(step, bo.state.own_list, ANA, ana.entry, _bundle_of(ana))
            assert stale == [True, False]

    run(scenario)


def _bundle_of(keys: DeviceKeys) -> Bundle:
    _ring, upload = PrekeyRing.generate(keys, START_S, 1)
    return Bundle(keys.public, upload.signed_prekey, upload.kem_prekey, upload.one_time)
