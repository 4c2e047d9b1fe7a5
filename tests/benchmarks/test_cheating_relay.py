"""A whole relay that loses or doubles one envelope, under the load of the benchmarks: the run has no figures.

The cheat is planted in the process of the relay while it starts (`sitecustomize`); its honest twin has none.
"""

import os
from pathlib import Path

import pytest

from benchmarks.load.job import Job, LoadResult
from benchmarks.load.ledger import LostOrDoubled
from benchmarks.load.process import running
from benchmarks.servers import relay_server
from tests.relay.running import PROJECT

PLANTED = """
from relay.core.outbox import Outbox
from wire.commands import Delivered

honest = Outbox.delivery

def loses(self, mailbox, one):
    if one.number != 2:
        honest(self, mailbox, one)

def doubles(self, mailbox, one):
    honest(self, mailbox, one)
    if one.number == 2:
        honest(self, mailbox, Delivered(1_000, one.envelope_id, one.expiry, one.body))

def changes(self, mailbox, one):
    body = one.body[:-1] + bytes((one.body[-1] ^ 1,)) if one.number == 2 else one.body
    honest(self, mailbox, Delivered(one.number, one.envelope_id, one.expiry, body))

Outbox.delivery = CHEAT
"""


def run(folder: Path, cheat: str, online: bool = True) -> LoadResult:
    (folder / "sitecustomize.py").write_text(PLANTED.replace("CHEAT", cheat), encoding="ascii")
    path = os.pathsep.join((str(folder), str(PROJECT)))
    with relay_server(folder, "nats", environment={"PYTHONPATH": path}) as relay:
        job = Job(
            name="twin",
            broker=relay.url,
            relay_id=relay.card.relay_id.hex(),
            relay_key=relay.card.signing_key.hex(),
            admin_seed=relay.admin.seed.hex(),
            seed=1,
            messages=12,
            senders=2,
            recipients=3,
            online=online,
            stall_s=0.8,
        )
        with running([job], lambda done: None) as loads:
            loads.phase("submit", "submitted")
            loads.phase("drain", "drained")
            (result,) = loads.phase("finish", "finished")
            return result


def test_honest_relay_delivers_everything_once(tmp_path: Path) -> None:
    result = run(tmp_path, "honest")
    assert (result.sent, result.delivered) == (12, 12)


@pytest.mark.parametrize("online", [True, False], ids=["online", "away"])
def test_lost_envelope_fails_the_run_instead_of_waiting_for_it(tmp_path: Path, online: bool) -> None:
    # Three recipients, and the second envelope of each.
    with pytest.raises(LostOrDoubled, match=r"nothing more for 0\.8 s: 12 sent, 12 receipted, 9 delivered"):
        run(tmp_path, "loses", online)


def test_envelope_delivered_under_two_numbers_fails_the_run(tmp_path: Path) -> None:
    with pytest.raises(LostOrDoubled, match="stored twice"):
        run(tmp_path, "doubles")


def test_changed_body_fails_the_run(tmp_path: Path) -> None:
    with pytest.raises(LostOrDoubled, match="another body"):
        run(tmp_path, "changes")
