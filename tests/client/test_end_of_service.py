"""A relay that serves a company no more: senders are told by name, others still get it, mail is taken back."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from client.content import Kind
from client.errors import Refused, ServiceEnded, refused
from tests.client.world import World, run
from wire.errors import SERVICE_ENDED, RefusalCode

ANA, BO, CY = "ana@acme.example", "bo@globex.example", "cy@acme.example"


def test_a_sender_is_told_which_company_and_the_others_still_get_it(tmp_path: Path) -> None:
    async def scenario() -> None:
        world = World(tmp_path)
        async with world.new(ANA) as ana, world.new(CY) as cy:
            async with world.new(BO) as bo:
                await bo.enrolled(30)
            await cy.enrolled(30)
            before = ana.compose(Kind.CHAT, b"waits", [BO])
            await ana.send(before, [BO], wait_s=60)
            world.core.end_service(["globex.example"])
            chat = ana.compose(Kind.CHAT, b"to both", [BO, CY])
            with pytest.raises(ServiceEnded, match=r"the service for globex\.example has ended") as told:
                await ana.send(chat, [BO, CY], wait_s=60)
            assert told.value.domain == "globex.example"
            assert [message.payload for message in await cy.receive(60)] == [b"to both"]
            await ana.idle(60)
            await cy.idle(60)
            await asyncio.sleep(30)
            assert any("globex.example has ended" in notice.text for notice in ana.notices())
            assert world.held() == 1
            assert await ana.withdraw(before.message_id, wait_s=60) == 1
            assert world.held() == 0

    run(scenario)


@pytest.mark.parametrize(
    ("code", "field"),
    [
        (RefusalCode.UNKNOWN_ACCOUNT, "account"),
        (RefusalCode.UNKNOWN_ACCOUNT, f"{SERVICE_ENDED}no domain\n"),
        (RefusalCode.MALFORMED, f"{SERVICE_ENDED}acme.example"),
    ],
)
def test_a_refusal_that_names_no_company_is_none_of_these(code: RefusalCode, field: str) -> None:
    error = refused("submit", code, field)
    assert type(error) is Refused
    assert error.field == field
