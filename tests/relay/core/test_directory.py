"""Tenants, tokens, lists and prekeys (protocol.md sections 2.2 to 2.4): what is taken, what is handed out once."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from relay.core import CoreConfig
from relay.store.memory import MemoryStore
from tests.relay.world import HOUR_S, Device, World, a_pair, seeded
from wire.commands import AddPrekeys, Directory, Enrol, LookUp, PublishList, PublishPrekeys
from wire.errors import FormatError, RefusalCode
from wire.identity import (
    NO_PREVIOUS,
    Activation,
    DeviceEntry,
    DeviceList,
    SignedList,
    Token,
    sign_activation,
    sign_list,
)
from wire.link import FrameOpener, FrameSealer, accept_welcome, begin_hello
from wire.prekeys import OneTimePrekey, Prekeys
from wire.signing import SigningKey


def refused(device: Device) -> list[tuple[int, str]]:
    return [(item.code, item.field) for item in device.refusals()]


def memory(world: World) -> MemoryStore:
    assert isinstance(world.store, MemoryStore)
    return world.store


@dataclass
class Candidate:
    """A device that is about to enrol, and all that it would show."""

    world: World
    device: Device
    token: Token
    signed: SignedList
    prekeys: Prekeys

    def enrol(self) -> list[tuple[int, str]]:
        """Try; return the refusals, after checking that a refused enrolment left nothing behind."""
        before = memory(self.world).load()
        self.world.send(self.device, Enrol(self.device.next_ref(), self.token, self.signed, self.prekeys))
        refusals = refused(self.device)
        if refusals:
            assert memory(self.world).load() == before
        return refusals


@pytest.fixture
def candidate() -> Candidate:
    world = World()
    device = world.device("ana")
    world.link(device)
    device.inbox.clear()
    return Candidate(world, device, world.token(device.account), world.first_list(device), device.prekeys())


class TestEnrol:
    def test_first_device_is_enrolled_and_its_rows_are_there(self, candidate: Candidate) -> None:
        assert candidate.enrol() == []
        assert candidate.device.done() == [1]
        store = memory(candidate.world)
        (mailbox,) = store.mailboxes.values()
        assert (mailbox.mailbox, mailbox.account) == (candidate.device.mailbox, "ana@acme.example")
        assert mailbox.enrolled_day == candidate.world.now_s // 86_400
        assert [row.kind for row in store.prekeys.values()] == [1, 2, 3, 3]
        assert len(store.used_tokens) == len(store.lists) == 1

    @pytest.mark.parametrize("restart", [False, True])
    def test_same_enrolment_again_is_done_again(self, candidate: Candidate, restart: bool) -> None:
        candidate.enrol()
        if restart:
            candidate.world.restart()
            candidate.world.link(candidate.device)
        candidate.device.inbox.clear()
        assert candidate.enrol() == []
        assert len(candidate.device.done()) == 1
        assert len(memory(candidate.world).lists) == 1

    def test_same_enrolment_twice_in_a_batch_is_done_twice(self, candidate: Candidate) -> None:
        enrol = [Enrol(ref, candidate.token, candidate.signed, candidate.prekeys) for ref in (1, 2)]
        candidate.world.send(candidate.device, *enrol)
        assert candidate.device.done() == [1, 2]

    @pytest.mark.parametrize("restart", [False, True])
    def test_attack_token_used_twice_is_refused(self, candidate: Candidate, restart: bool) -> None:
        candidate.enrol()
        world = candidate.world
        if restart:
            world.restart()
        other = world.device("eve", candidate.device.account)
        world.link(other)
        other.inbox.clear()
        world.account_keys[other.account] = SigningKey(seeded("eve's account key"))
        candidate.device, candidate.signed, candidate.prekeys = other, world.first_list(other), other.prekeys()
        assert candidate.enrol() == [(RefusalCode.TOKEN_INVALID, "nonce")]

    def test_attack_token_signed_by_another_admin_is_refused(self, candidate: Candidate) -> None:
        activation = Activation("acme.example", candidate.device.account, bytes(16), candidate.world.now_s + HOUR_S)
        candidate.token = sign_activation(SigningKey(seeded("eve")), activation)
        assert candidate.enrol() == [(RefusalCode.TOKEN_INVALID, "activation")]

    def test_attack_token_of_a_tenant_that_was_not_admitted_is_refused(self, candidate: Candidate) -> None:
        activation = Activation("evil.example", "ana@evil.example", bytes(16), candidate.world.now_s + HOUR_S)
        candidate.token = sign_activation(candidate.world.admin, activation)
        # The same words as for a signature that is wrong: the relay does not tell strangers whom it serves.
        assert candidate.enrol() == [(RefusalCode.TOKEN_INVALID, "activation")]

    def test_attack_the_key_that_stands_in_for_an_unknown_tenants_is_no_tenants(
        self, candidate: Candidate, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Even for whoever has its private half, which the base point's holder could have."""
        nobody = SigningKey(seeded("nobody"))
        monkeypatch.setattr("relay.core.directory._NOBODYS_KEY", nobody.public)
        account = "ana@globex.example"
        activation = Activation("globex.example", account, bytes(16), candidate.world.now_s + HOUR_S)
        candidate.token = sign_activation(nobody, activation)
        candidate.device.account = account
        candidate.signed = candidate.world.first_list(candidate.device)
        assert candidate.enrol() == [(RefusalCode.TOKEN_INVALID, "activation")]

    def test_attack_expired_token_is_refused(self, candidate: Candidate) -> None:
        candidate.token = candidate.world.token(candidate.device.account, not_after=candidate.world.now_s - 1)
        assert candidate.enrol() == [(RefusalCode.TOKEN_INVALID, "activation")]
        candidate.token = candidate.world.token(candidate.device.account, not_after=candidate.world.now_s)
        assert candidate.enrol() == []

    def test_attack_token_of_another_account_is_refused(self, candidate: Candidate) -> None:
        candidate.token = candidate.world.token("bob@acme.example")
        assert candidate.enrol() == [(RefusalCode.TOKEN_INVALID, "account")]

    def test_token_of_a_refused_enrolment_is_still_good(self, candidate: Candidate) -> None:
        good = candidate.prekeys
        spoilt = good.signed_prekey.__class__(good.signed_prekey.id, good.signed_prekey.key, bytes(64))
        candidate.prekeys = Prekeys(good.device_key, spoilt, good.kem_prekey, good.one_time)
        assert candidate.enrol() == [(RefusalCode.PREKEYS_INVALID, "signature")]
        candidate.prekeys = good
        assert candidate.enrol() == []

    def test_attack_list_with_a_spoilt_signature_is_refused(self, candidate: Candidate) -> None:
        candidate.signed = SignedList(candidate.signed.list, bytes(64))
        assert candidate.enrol() == [(RefusalCode.LIST_INVALID, "signature")]

    def test_list_that_does_not_decode_is_refused(self, candidate: Candidate) -> None:
        candidate.signed = SignedList(b"\xc0", candidate.signed.signature)
        assert candidate.enrol() == [(RefusalCode.LIST_INVALID, "device list")]

    def test_list_of_two_devices_or_of_version_two_is_no_first_list(self, candidate: Candidate) -> None:
        world, ana = candidate.world, candidate.device
        key = world.account_keys[ana.account]
        two = (ana.entry, world.device("tablet", ana.account).entry)
        candidate.signed = sign_list(key, DeviceList(ana.account, 1, NO_PREVIOUS, key.public, two))
        assert candidate.enrol() == [(RefusalCode.LIST_INVALID, "devices")]
        candidate.signed = sign_list(key, DeviceList(ana.account, 2, b"p" * 32, key.public, (ana.entry,)))
        assert candidate.enrol() == [(RefusalCode.LIST_INVALID, "version")]

    def test_attack_link_that_does_not_speak_for_the_device_is_refused(self, candidate: Candidate) -> None:
        eve = candidate.world.device("eve")
        candidate.world.link(eve)
        eve.inbox.clear()
        candidate.device = eve
        assert candidate.enrol() == [(RefusalCode.NOT_ENTITLED, "device_key")]

    def test_prekeys_of_another_device_are_refused(self, candidate: Candidate) -> None:
        world = candidate.world
        bob = world.device("bob")
        candidate.signed = world.first_list(bob)
        candidate.token = world.token(bob.account)
        assert candidate.enrol() == [(RefusalCode.PREKEYS_INVALID, "device_key")]

    def test_prekeys_that_name_an_id_twice_are_refused(self, candidate: Candidate) -> None:
        one = candidate.prekeys.one_time[0]
        good = candidate.prekeys
        candidate.prekeys = Prekeys(good.device_key, good.signed_prekey, good.kem_prekey, (one, one))
        assert candidate.enrol() == [(RefusalCode.PREKEYS_INVALID, "prekeys")]

    @pytest.mark.parametrize("taken", ["mailbox", "device_key"])
    def test_attack_mailbox_or_device_of_somebody_else_is_refused(self, taken: str) -> None:
        world = World()
        bob = world.enrolled("bob")
        eve = world.device("eve")
        if taken == "mailbox":
            eve.mailbox = bob.mailbox
        else:
            eve.key = bob.key
            world.devices[bob.tag] = eve
            eve.tag = bob.tag
        world.link(eve)
        eve.inbox.clear()
        attacker = Candidate(world, eve, world.token(eve.account), world.first_list(eve), eve.prekeys())
        assert attacker.enrol() == [(RefusalCode.LIST_INVALID, taken)]

    def test_new_token_starts_an_account_anew_and_closes_its_old_mailboxes(self) -> None:
        pair = a_pair()
        world, ana, bob = pair.world, pair.ana, pair.bob
        world.send(ana, world.submit(ana, bob.account, world.mail(bob)))
        phone = world.device("new phone", bob.account)
        world.link(phone)
        world.account_keys[bob.account] = SigningKey(seeded("new account key"))
        signed = world.first_list(phone)
        world.send(phone, Enrol(1, world.token(bob.account, "second"), signed, phone.prekeys()))
        assert phone.done() == [1]
        assert not memory(world).envelopes
        world.send(ana, world.submit(ana, bob.account, world.mail(phone)))
        assert not ana.refusals()
        world.restart()
        world.link(phone)
        assert phone.linked()[-1].devices[0].enrolled
        world.link(bob)
        assert not bob.linked()[-1].devices[0].enrolled

    def test_work_of_enrolling_is_paid_for(self) -> None:
        world = World(CoreConfig(link_work_burst=5, link_work_per_s=1))
        ana = world.device("ana")
        world.link(ana)
        ana.inbox.clear()
        signed = world.first_list(ana)
        world.send(ana, Enrol(1, world.token(ana.account), signed, ana.prekeys(one_time=2)))
        (refusal,) = ana.refusals()
        assert (refusal.code, refusal.retry_after_ms) == (RefusalCode.LINK_QUOTA, 6_000)


class TestLists:
    def test_attack_lists_without_end_are_refused_until_the_next_day(self) -> None:
        """Lists and closed mailboxes are kept for good: one account must not fill the disk."""
        pair = a_pair()
        world, ana = pair.world, pair.ana
        for turn in range(64):
            spare = world.device(f"spare {turn}", ana.account)
            world.send(ana, PublishList(ana.next_ref(), world.next_list(ana.account, ana, spare)))
        assert refused(ana) == []
        mailboxes = len(memory(world).mailboxes)
        late = world.next_list(ana.account, ana)
        world.send(ana, PublishList(1_000, late))
        assert refused(ana) == [(RefusalCode.LINK_QUOTA, "lists")]
        assert len(memory(world).mailboxes) == mailboxes
        ana.inbox.clear()
        world.after(24 * HOUR_S * 1_000)
        world.send(ana, PublishList(1_000, late))
        assert ana.done() == [1_000]

    def test_any_device_of_the_account_may_carry_the_next_list(self) -> None:
        world = World()
        ana = world.enrolled("ana")
        tablet, watch = (world.device(name, ana.account) for name in ("tablet", "watch"))
        world.send(ana, PublishList(ana.next_ref(), world.next_list(ana.account, ana, tablet)))
        world.link(tablet)
        world.send(tablet, PublishList(1, world.next_list(ana.account, ana, tablet, watch)))
        assert tablet.done() == [1]
        assert len(memory(world).lists) == 3
        assert len(memory(world).mailboxes) == 3

    def test_same_list_again_is_done_again(self) -> None:
        world = World()
        ana = world.enrolled("ana")
        signed = world.next_list(ana.account, ana, world.device("tablet", ana.account))
        world.send(ana, PublishList(8, signed), PublishList(9, signed))
        world.send(ana, PublishList(10, signed))
        assert ana.done() == [8, 9, 10]
        assert len(memory(world).lists) == 2

    def test_attack_list_fork_is_refused(self) -> None:
        world = World()
        ana = world.enrolled("ana")
        first = world.lists[ana.account]
        one = world.next_list(ana.account, ana, world.device("tablet", ana.account))
        world.lists[ana.account] = first
        two = world.next_list(ana.account, ana, world.device("ghost", ana.account))
        world.send(ana, PublishList(8, one))
        world.send(ana, PublishList(9, two))
        (refusal,) = ana.refusals()
        assert (refusal.ref, refusal.code, refusal.limit) == (9, RefusalCode.LIST_INVALID, 3)
        assert refusal.field == "has version 2, which does not follow 2"

    def test_attack_older_list_is_refused(self) -> None:
        world = World()
        ana = world.enrolled("ana")
        old = world.lists[ana.account][1]
        world.send(ana, PublishList(8, world.next_list(ana.account, ana, world.device("tablet", ana.account))))
        world.send(ana, PublishList(9, old))
        assert [item.code for item in ana.refusals()] == [RefusalCode.LIST_INVALID]

    def test_attack_list_of_another_account_is_refused_as_one_that_does_not_exist(self) -> None:
        pair = a_pair()
        world, ana, bob = pair.world, pair.ana, pair.bob
        ghost = world.device("ghost", bob.account)
        world.send(ana, PublishList(8, world.next_list(bob.account, bob, ghost)))
        nobody = world.device("nobody")
        world.send(ana, PublishList(9, world.first_list(nobody)))
        one, two = ana.refusals()
        assert (one.code, one.field) == (two.code, two.field) == (RefusalCode.NOT_ENTITLED, "account")

    def test_attack_list_signed_by_another_account_key_is_refused(self) -> None:
        world = World()
        ana = world.enrolled("ana")
        world.account_keys[ana.account] = SigningKey(seeded("eve"))
        world.send(ana, PublishList(8, world.next_list(ana.account, ana)))
        assert refused(ana) == [(RefusalCode.LIST_INVALID, "is of another account key")]

    def test_list_that_does_not_decode_or_verify_is_refused(self) -> None:
        world = World()
        ana = world.enrolled("ana")
        signed = world.next_list(ana.account, ana)
        world.send(
            ana, PublishList(8, SignedList(b"\xc0", bytes(64))), PublishList(9, SignedList(signed.list, bytes(64)))
        )
        assert refused(ana) == [(RefusalCode.LIST_INVALID, "list"), (RefusalCode.LIST_INVALID, "signature")]

    def test_device_cannot_take_the_mailbox_that_its_account_closed(self) -> None:
        world = World()
        ana = world.enrolled("ana")
        tablet = world.device("tablet", ana.account)
        world.send(ana, PublishList(8, world.next_list(ana.account, ana, tablet)))
        world.send(ana, PublishList(9, world.next_list(ana.account, ana)))
        world.send(ana, PublishList(10, world.next_list(ana.account, ana, tablet)))
        assert refused(ana) == [(RefusalCode.LIST_INVALID, "mailbox")]

    def test_attack_swapped_mailboxes_of_two_devices_are_refused(self) -> None:
        world = World()
        ana = world.enrolled("ana")
        tablet = world.device("tablet", ana.account)
        world.send(ana, PublishList(8, world.next_list(ana.account, ana, tablet)))
        ana.mailbox, tablet.mailbox = tablet.mailbox, ana.mailbox
        world.send(ana, PublishList(9, world.next_list(ana.account, ana, tablet)))
        assert refused(ana) == [(RefusalCode.LIST_INVALID, "mailbox")]

    def test_removed_device_loses_its_prekeys_and_its_rights(self) -> None:
        world = World()
        ana = world.enrolled("ana")
        tablet = world.device("tablet", ana.account)
        world.send(ana, PublishList(8, world.next_list(ana.account, ana, tablet)))
        world.link(tablet)
        world.send(tablet, PublishPrekeys(1, tablet.prekeys()))
        assert tablet.done() == [1]
        world.send(ana, PublishList(9, world.next_list(ana.account, ana)))
        assert {row.device_key for row in memory(world).prekeys.values()} == {ana.key.public}
        world.send(tablet, LookUp(2, ana.account, False), PublishPrekeys(3, tablet.prekeys()))
        assert refused(tablet) == [(RefusalCode.NOT_ENTITLED, "link"), (RefusalCode.NOT_ENTITLED, "device_key")]


class TestPrekeys:
    def test_publishing_replaces_everything(self) -> None:
        world = World()
        ana = world.enrolled("ana")
        new = ana.prekeys(one_time=3, generation=1)
        world.send(ana, PublishPrekeys(8, new))
        assert ana.done() == [8]
        rows = sorted(memory(world).prekeys.values())
        assert [(row.kind, row.id) for row in rows] == [
            (1, new.signed_prekey.id),
            (2, new.signed_prekey.id),
            *((3, one.id) for one in new.one_time),
        ]

    def test_attack_prekeys_of_another_device_are_refused(self) -> None:
        pair = a_pair()
        pair.world.send(pair.ana, PublishPrekeys(8, pair.bob.prekeys(generation=1)))
        assert refused(pair.ana) == [(RefusalCode.NOT_ENTITLED, "device_key")]

    def test_one_time_prekeys_are_added_once(self) -> None:
        world = World()
        ana = world.enrolled("ana")
        more = tuple(ana.one_time(f"more {index}") for index in range(3))
        world.send(ana, AddPrekeys(8, more))
        world.send(ana, AddPrekeys(9, more))
        assert ana.done() == [8, 9]
        assert len(memory(world).prekeys) == 2 + 2 + 3

    def test_at_most_128_one_time_prekeys_are_kept(self) -> None:
        world = World()
        ana = world.enrolled("ana")
        for batch in range(2):
            world.send(ana, AddPrekeys(8, tuple(ana.one_time(f"{batch} {index}") for index in range(63))))
        assert ana.refusals() == []
        world.send(ana, AddPrekeys(9, (ana.one_time("one too many"),)))
        (refusal,) = ana.refusals()
        assert (refusal.code, refusal.field, refusal.limit) == (RefusalCode.PREKEYS_INVALID, "one_time", 128)

    def test_attack_one_time_prekey_with_a_spoilt_signature_is_refused_with_all_others(self) -> None:
        world = World()
        ana = world.enrolled("ana")
        good = ana.one_time("good")
        spoilt = OneTimePrekey(seeded("other id")[:16], good.x_key, good.kem_key, good.signature)
        world.send(ana, AddPrekeys(8, (good, spoilt)))
        assert refused(ana) == [(RefusalCode.PREKEYS_INVALID, "signature")]
        assert len(memory(world).prekeys) == 4

    def test_one_time_prekeys_need_a_signed_prekey_first(self) -> None:
        world = World()
        ana = world.enrolled("ana")
        tablet = world.device("tablet", ana.account)
        world.send(ana, PublishList(8, world.next_list(ana.account, ana, tablet)))
        world.link(tablet)
        world.send(tablet, AddPrekeys(1, (tablet.one_time("early"),)))
        assert refused(tablet) == [(RefusalCode.PREKEYS_INVALID, "signed_prekey")]

    def test_link_of_many_devices_adds_to_the_one_that_signed(self) -> None:
        world = World()
        ana = world.enrolled("ana")
        bob = world.enrolled("bob")
        pending = begin_hello(world.relay_id, ana.rng.randbytes)
        world.core.receive(ana.tag, pending.packet, world.now_ms)
        welcome = world.core.take_packets()[-1][1]
        keys, _chain, prove = accept_welcome(pending, world.relay_key.public, welcome, [ana.key, bob.key])
        ana.opener, ana.sealer = FrameOpener(keys.down_key), FrameSealer(keys.link_id, keys.up_key)
        world.core.receive(ana.tag, prove, world.now_ms)
        world.send(ana, AddPrekeys(8, (bob.one_time("his"),)), AddPrekeys(9, (world.device("eve").one_time("no"),)))
        assert ana.done() == [8]
        assert refused(ana) == [(RefusalCode.PREKEYS_INVALID, "signature")]
        assert [row.device_key for row in memory(world).prekeys.values()].count(bob.key.public) == 5


class TestLookUp:
    def look_up(self, world: World, device: Device, account: str, bundles: bool = True, ref: int = 0) -> Directory:
        world.send(device, LookUp(ref or device.next_ref(), account, bundles))
        (answer,) = device.directories()
        return answer

    def test_without_bundles_nothing_is_taken(self) -> None:
        pair = a_pair()
        answer = self.look_up(pair.world, pair.ana, pair.bob.account, bundles=False)
        assert answer.signed_list == pair.world.lists[pair.bob.account][1]
        assert answer.bundles == ()
        assert len(memory(pair.world).prekeys) == 8

    def test_each_look_up_takes_another_one_time_prekey_until_none_is_left(self) -> None:
        pair = a_pair()
        world, ana, bob = pair.world, pair.ana, pair.bob
        taken = [self.look_up(world, ana, bob.account).bundles[0] for _ in range(3)]
        published = bob.prekeys()
        assert [one.one_time for one in taken] == [(published.one_time[0],), (published.one_time[1],), ()]
        assert {one.signed_prekey for one in taken} == {published.signed_prekey}
        assert {one.kem_prekey for one in taken} == {published.kem_prekey}
        assert len(memory(world).prekeys) == 6

    def test_no_one_time_prekey_is_handed_out_twice_even_after_a_restart(self) -> None:
        pair = a_pair()
        world, ana, bob = pair.world, pair.ana, pair.bob
        first = self.look_up(world, ana, bob.account).bundles[0]
        world.restart()
        world.link(ana)
        second = self.look_up(world, ana, bob.account).bundles[0]
        assert first.one_time != second.one_time

    def test_attack_repeated_upload_does_not_offer_a_taken_prekey_again(self) -> None:
        pair = a_pair()
        world, ana, bob = pair.world, pair.ana, pair.bob
        taken = self.look_up(world, ana, bob.account).bundles[0].one_time
        world.send(bob, AddPrekeys(8, taken), PublishPrekeys(9, bob.prekeys()))
        assert bob.done() == [8, 9]
        answers = [self.look_up(world, ana, bob.account).bundles[0].one_time for _ in range(2)]
        assert answers == [(bob.prekeys().one_time[1],), ()]

    def test_repeated_look_up_gets_the_same_answer(self) -> None:
        pair = a_pair()
        world, ana, bob = pair.world, pair.ana, pair.bob
        world.send(ana, LookUp(5, bob.account, True), LookUp(5, bob.account, True))
        world.send(ana, LookUp(5, bob.account, True))
        one, two, three = ana.directories()
        assert one == two == three
        assert self.look_up(world, ana, bob.account, ref=6).bundles[0].one_time != one.bundles[0].one_time
        # Another account under the same ref is another question.
        assert self.look_up(world, ana, ana.account, ref=5).signed_list == world.lists[ana.account][1]

    def test_answers_kept_for_repeats_are_bounded(self) -> None:
        pair = a_pair(CoreConfig(bundle_answers_kept=2))
        world, ana, bob = pair.world, pair.ana, pair.bob
        for ref in (1, 2, 3):
            self.look_up(world, ana, bob.account, ref=ref)
        link = next(link for link in world.core._links._links.values() if link.tag == ana.tag)
        assert list(link.bundle_answers) == [2, 3]

    def test_prekeys_added_and_taken_in_one_batch_leave_no_row(self) -> None:
        world = World()
        ana = world.enrolled("ana", credit=0)
        self.look_up(world, ana, ana.account)
        self.look_up(world, ana, ana.account)
        commits = world.core.counters.commits
        new = ana.one_time("new")
        world.send(ana, AddPrekeys(8, (new,)), LookUp(9, ana.account, True))
        assert ana.done() == [8]
        (answer,) = ana.directories()
        assert answer.bundles[0].one_time == (new,)
        assert len(memory(world).prekeys) == 2
        assert world.core.counters.commits == commits

    def test_device_without_prekeys_has_no_bundle(self) -> None:
        world = World()
        ana = world.enrolled("ana")
        tablet = world.device("tablet", ana.account)
        world.send(ana, PublishList(8, world.next_list(ana.account, ana, tablet)))
        assert [one.device_key for one in self.look_up(world, ana, ana.account).bundles] == [ana.key.public]

    def test_unknown_account_is_told_to_enrolled_devices_only(self) -> None:
        world = World()
        ana = world.enrolled("ana")
        eve = world.device("eve")
        world.link(eve)
        eve.inbox.clear()
        for device in (ana, eve):
            world.send(device, LookUp(8, "nobody@acme.example", True), LookUp(9, ana.account, True))
        assert refused(ana) == [(RefusalCode.UNKNOWN_ACCOUNT, "account")]
        assert refused(eve) == [(RefusalCode.NOT_ENTITLED, "link")] * 2


class TestTenants:
    def test_tenant_is_admitted_once(self) -> None:
        world = World()
        world.core.admit_tenant("acme.example", world.admin.public)
        assert not world.core.has_work()
        world.core.admit_tenant("globex.example", seeded("globex"))
        world.core.admit_tenant("globex.example", seeded("globex"))
        world.run()
        assert [row.domain for row in memory(world).tenants.values()] == ["acme.example", "globex.example"]
        world.restart()
        world.core.admit_tenant("globex.example", seeded("globex"))
        assert not world.core.has_work()

    @pytest.mark.parametrize(
        ("domain", "key", "words"),
        [
            ("Acme", bytes(32), "domain"),
            ("new.example", bytes(31), "admin key: has 31 bytes"),
            ("acme.example", bytes(32), "acme.example has another one already"),
        ],
    )
    def test_tenant_with_a_bad_domain_or_key_is_refused(self, domain: str, key: bytes, words: str) -> None:
        with pytest.raises(FormatError, match=words):
            World().core.admit_tenant(domain, key)


def test_prekeys_in_the_store_that_contradict_the_lists_are_refused() -> None:
    world = World()
    world.enrolled("ana")
    store = memory(world)
    rows = dict(store.prekeys)
    store.prekeys[1] = rows[1]._replace(kind=9)
    with pytest.raises(FormatError, match="kind 9 is unknown"):
        world.restart()
    store.prekeys[1] = rows[1]._replace(device_key=bytes(32))
    with pytest.raises(FormatError, match="a device that is on no list"):
        world.restart()


def test_list_in_the_store_that_names_a_mailbox_which_is_not_there_is_refused() -> None:
    world = World()
    world.enrolled("ana")
    memory(world).mailboxes.clear()
    with pytest.raises(FormatError, match="lists: version 1 names a mailbox that is not there"):
        world.restart()


def test_ids_of_taken_prekeys_are_remembered_within_bounds() -> None:
    pair = a_pair(CoreConfig(link_work_burst=100_000))
    world, ana, bob = pair.world, pair.ana, pair.bob
    for batch in range(5):
        world.send(bob, AddPrekeys(bob.next_ref(), tuple(bob.one_time(f"{batch} {index}") for index in range(60))))
        world.send(ana, *(LookUp(ana.next_ref(), bob.account, True) for _ in range(60)))
    taken = [answer.bundles[0].one_time[0].id for answer in ana.directories()]
    assert len(taken) == len(set(taken)) == 300
    assert list(world.core._directory.devices[bob.key.public].taken) == taken[-256:]


def test_old_tokens_go_in_bounded_portions(monkeypatch: pytest.MonkeyPatch) -> None:
    pair = a_pair()
    world, ana, bob = pair.world, pair.ana, pair.bob
    monkeypatch.setattr("relay.core.core._TOKENS_SWEPT_MAX", 1)
    for left in (1, 0):
        world.after(2 * HOUR_S * 1_000)
        world.send(ana, world.submit(ana, bob.account, world.mail(bob)))
        assert len(memory(world).used_tokens) == left


def test_aborted_sweep_of_old_tokens_is_taken_back() -> None:
    pair = a_pair()
    world, ana, bob = pair.world, pair.ana, pair.bob
    world.after(2 * HOUR_S * 1_000)
    before = dict(world.core._directory._used_tokens)
    world.fail = 1
    world.send(ana, world.submit(ana, bob.account, world.mail(bob)))
    assert world.core._directory._used_tokens == before
    assert len(ana.refusals()) == 1


def test_entry_with_another_dh_key_keeps_the_mailbox() -> None:
    world = World()
    ana = world.enrolled("ana")
    bob = world.enrolled("bob")
    world.send(bob, world.submit(bob, ana.account, world.mail(ana)))
    ana.dh_key = seeded("new dh")
    assert ana.entry == DeviceEntry(ana.key.public, seeded("new dh"), ana.mailbox)
    world.send(ana, PublishList(8, world.next_list(ana.account, ana)))
    assert ana.done() == [8]
    assert len(memory(world).envelopes) == 1
