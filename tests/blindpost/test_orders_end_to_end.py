"""Orders as an authority, an operator and a person type them, against a relay that runs and one that does not."""

from __future__ import annotations

from pathlib import Path

import msgpack  # type: ignore[import-untyped]
import pytest

from relay.asking import end_service
from tests.blindpost.test_end_to_end import World, enrol, world
from wire.held import read_held

__all__ = ["world"]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

CARD = ("--relay-card", "relay/relay-card.toml")


def test_orders_on_a_running_relay_are_answered_logged_and_audited(world: World) -> None:
    folder = world.folder
    world.run("relay", "init", "--home", "relay")
    world.start_relay()
    world.run("tenant", "add", "acme.example", "--home", "relay", "--out", "acme.key", "--unprotected")
    for name in ("ana", "omar"):
        enrol(world, name, f"{name}@acme.example", "acme.key")
    world.person("chat", "send", "--home", "ana", "--to", "omar@acme.example", "kept by order")
    about = ("--home", "relay", "--account", "omar@acme.example")

    told = world.run("order", "subscriber", *about, "--out", "omar.held", "--issuer", "A court", "--jurisdiction", "CA")
    assert "answer: given" in told
    world.run("mydata", *about, "--out", "operators.held")
    assert "when the device was enrolled" in world.person("mydata", "--home", "omar", "--out", "own.held")
    for copy in ("operators.held", "own.held"):
        assert (folder / "omar.held").read_bytes() == (folder / copy).read_bytes()
    held = read_held((folder / "omar.held").read_bytes())
    assert {table.table: len(table.rows) for table in held.tables}["envelopes"] == 1
    assert "enrolled_day" in world.run("mydata", "--read", "omar.held")

    told = world.run("order", "content", *about, "--out", "omar.content")
    assert "answer: ciphertext" in told
    unpacker = msgpack.Unpacker(raw=False)
    unpacker.feed((folder / "omar.content").read_bytes())
    (row,) = list(unpacker)
    assert len(row[5]) >= 400
    assert b"kept by order" not in row[5]

    assert "answer: given" in world.run("order", "preservation", *about, "--until", until_day(60))
    world.hear("omar", "kept by order")
    world.run("order", "wholesale", "--home", "relay", "--out", "disclosure")
    told = world.run("audit", "disclosure", *CARD, "--order", "disclosure/order.toml")
    assert "1 mailboxes are preserved by order, and hold 1 envelopes that were" in " ".join(told.split())
    assert told.startswith("BLIND")
    assert "answer: refused" in world.run("order", "ghost", *about)
    assert "released, what was kept is erased" in world.run("order", "release", "2", "--home", "relay")
    world.run("order", "wholesale", "--home", "relay", "--out", "afterwards")
    told = world.run("audit", "afterwards", *CARD, "--order", "afterwards/order.toml")
    assert told.startswith("BLIND")
    assert "preserved by order" not in told

    sent = world.person("chat", "send", "--home", "ana", "--to", "omar@acme.example", "regret")
    end_service(folder / "relay", ("acme.example",))
    told = world.person("chat", "send", "--home", "ana", "--to", "omar@acme.example", "too late", status=69)
    assert "the service for acme.example has ended" in told
    told = world.person("chat", "withdraw", "--home", "ana", sent.split()[1][:8])
    assert "asked to erase 1 envelopes" in told
    assert "regret" not in world.person("receive", "--home", "omar")

    assert world.stop_relay() == 0
    world.run("order", "keys", "--home", "relay", "--jurisdiction", "GB", "--secret-until", until_day(90))
    world.run("order", "open", "6", "--home", "relay", status=69)
    world.run("log", "mirror", "--home", "relay", "--out", "mirror")
    assert "1 sealed" in world.run("log", "verify", "mirror", *CARD)
    world.run("transparency-report", "--home", "relay", "--from", "2020-01-01", "--to", until_day(1), "--out", "report")
    world.run("order", "open", "6", "--home", "relay", "--lifted")
    world.run("log", "prove", "4", "--home", "relay", "--out", "leaf.tlog-proof")
    told = world.run(
        *("log", "verify", "relay/transparency", *CARD, "--checkpoint", "mirror/checkpoint"),
        *("--proof", "leaf.tlog-proof", "--report", "report"),
    )
    assert "0 sealed" in told
    assert told.endswith("the log holds\n")
    report = (folder / "report" / "requests.csv").read_text()
    assert "CA,subscriber,account,1,1,1,1,A court,given" in report
    assert "omar" not in report
    (folder / "report" / "requests.csv").write_text(report.replace("A court", "Nobody"))
    told = world.run("log", "verify", "relay/transparency", *CARD, "--report", "report", status=1)
    assert "requests.csv is not what the log says" in told


def until_day(days: int) -> str:
    import time

    return time.strftime("%Y-%m-%d", time.gmtime(time.time() + days * 86_400))


def test_leaving_a_country_is_announced_moved_and_taken_back(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.run("relay", "init", "--home", "relay")
    world.run("tenant", "add", "karachi.example", "--home", "relay", "--out", "key", "--unprotected")
    exit_ = ("order", "exit", "PK", "--home", "relay")
    world.run(*exit_, "--announce", until_day(-1), "--tenant", "karachi.example", status=69)
    world.run(*exit_, "--announce", until_day(30), status=64)
    world.run(*exit_, "--extend", until_day(30), status=69)
    told = world.run(*exit_, "--announce", until_day(30), "--tenant", "karachi.example", "--notice", "notice")
    assert (tmp_path / "notice").read_text().split("\n")[0] in told
    world.run(*exit_, "--extend", until_day(20), status=69)
    world.run(*exit_, "--extend", until_day(60))
    world.run(*exit_, "--complete", "--tenant", "karachi.example", status=69)
    assert not (tmp_path / "relay" / "ended-tenants").exists()
    world.run(*exit_, "--cancel")
    assert "the log holds" in world.run("log", "verify", "relay/transparency", *CARD)
