"""The service ends for a company: nothing new in or out, what waits is delivered, everybody else goes on."""

from __future__ import annotations

import pytest

from tests.relay.world import Device, World, a_pair
from wire.errors import FormatError, RefusalCode


def two_companies() -> tuple[World, Device, Device, Device]:
    """Ana of acme, Bob of acme, and Omar of a company whose service will end."""
    pair = a_pair()
    world = pair.world
    world.core.admit_tenant("karachi.example", world.admin.public)
    world.run()
    return world, pair.ana, pair.bob, world.enrolled("omar", "omar@karachi.example")


def test_what_waits_is_delivered_and_acknowledged_after_the_end() -> None:
    world, ana, _, omar = two_companies()
    mail = world.mail(omar)
    submit = world.submit(ana, omar.account, mail)
    world.send(ana, submit)
    omar.delivered()
    world.core.end_service(["karachi.example"])
    world.link(omar)
    world.subscribe(omar)
    assert [item.envelope_id for item in omar.delivered()] == [mail.envelope.envelope_id]
    world.send(omar, world.ack(omar, mail))
    assert not world.store.load().envelopes
    ana.receipts()
    world.send(ana, submit)
    assert ana.receipts(), "what was stored before keeps its receipt"


def test_nothing_new_is_taken_to_or_from_them_and_others_go_on() -> None:
    world, ana, bob, omar = two_companies()
    world.core.end_service(["karachi.example"])
    world.send(ana, world.submit(ana, omar.account, world.mail(omar)))
    world.send(omar, world.submit(omar, bob.account, world.mail(bob)))
    for device in (ana, omar):
        assert [item.code for item in device.refusals()] == [RefusalCode.UNKNOWN_ACCOUNT]
    world.send(ana, world.submit(ana, bob.account, world.mail(bob)))
    assert len(bob.delivered()) == 1


def test_nobody_of_theirs_is_admitted_any_more() -> None:
    world, *_ = two_companies()
    world.core.end_service(["karachi.example"])
    world.enrolled("zara", "zara@karachi.example")
    assert world.core.counters.refusals[RefusalCode.TOKEN_INVALID] == 1
    assert "zara@karachi.example" not in {row.account for row in world.store.load().mailboxes}


def test_a_company_that_was_never_admitted_cannot_be_left() -> None:
    world, *_ = two_companies()
    with pytest.raises(FormatError, match="not admitted"):
        world.core.end_service(["elsewhere.example"])
