"""An order to add a ghost device: answered and logged; a relay that tries it all the same is refused by the devices."""

import os
import secrets
from pathlib import Path

import pytest
from msgspec.structs import replace

from audit.material import read_card
from audit.order_log import verify_log
from relay.core.answers import Facts, answer_to
from relay.core.docket import Order, OrderKind, OrderState, Scope, ScopeKind
from relay.core.policy import Decision
from relay.home import CARD_NAME, init
from relay.logkey import LOG_FOLDER
from relay.orders import Desk
from tests.client.test_attacks import cheat, ghost_of, leave, pair
from tests.client.test_device import BO, say
from tests.client.world import World, run
from wire.commands import Directory, RelayCommand
from wire.errors import SignatureError

NOW_S = 1_543_449_600
ORDER = Order(
    kind=OrderKind.GHOST,
    issuer="The Secretary of State",
    jurisdiction="GB",
    legal_basis="Investigatory Powers Act 2016 s.253",
    received_s=NOW_S,
    scope=Scope(ScopeKind.ACCOUNT, BO),
)


def test_a_ghost_order_that_a_cheating_relay_carries_out_is_refused_by_the_senders(tmp_path: Path) -> None:
    home = init(tmp_path / "relay", secrets.token_bytes, listen="127.0.0.1:18833").path
    (home / "policy.toml").write_text('[GB]\nghost = "honour"\n')
    with Desk.at(home, lambda: NOW_S, os.urandom) as desk:
        number = desk.receive(ORDER).entry.number
        assert desk.policy.decision(ORDER) is Decision.HONOUR
        desk.answer(number, answer_to(ORDER, Decision.HONOUR, Facts(found=1)))
        assert desk.docket.entry(number).state is OrderState.REFUSED, "no policy has a key to sign with"

    async def scenario() -> None:
        world = World(tmp_path / "world")
        ana, bo = await pair(world)
        tried = 0

        def obey(command: RelayCommand) -> RelayCommand:
            nonlocal tried
            if isinstance(command, Directory):
                tried += 1
                return replace(command, signed_list=ghost_of(command.signed_list)[0])
            return command

        cheat(ana, obey)
        with pytest.raises(SignatureError):
            await say(ana, "not for ghosts", BO)
        assert tried
        assert world.held() == 0
        assert ana.state.pins.get(BO) is None
        assert await bo.receive(30) == []
        await leave(ana, bo)

    (tmp_path / "world").mkdir()
    run(scenario)
    log = verify_log(home / LOG_FOLDER, read_card((home / CARD_NAME).read_bytes(), "card"))
    assert log.findings == []
    assert [(order.kind, order.state) for order in log.orders] == [("ghost", "refused")]
