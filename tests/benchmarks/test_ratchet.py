"""The ratchet benchmark runs, checks what it measures, and names the peers that it left out. No figure is asserted."""

import asyncio
import importlib.util
import json

import pytest

from benchmarks import ratchet
from benchmarks.__main__ import main
from benchmarks.machine import describe
from benchmarks.ratchet_peers import Blindpost


def test_run_prints_machine_parts_and_every_peer_or_why_not(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ratchet", "--rounds", "1", "--messages", "4", "--json"]) == 0
    printed = capsys.readouterr().out
    assert describe() in printed
    for peer, module in (("PythonDoubleRatchet", "doubleratchet"), ("Vodozemac", "vodozemac")):
        if importlib.util.find_spec(module) is None:
            assert f"left out: {peer}: " in printed
    figures = json.loads(printed.splitlines()[-1])
    assert len(figures["ratchets"]["blindpost"]["encrypt"]) == 1
    assert all(figure > 0 for rows in figures["parts"].values() for row in rows.values() for figure in row)


def test_ratchet_that_gives_back_something_else_is_not_measured() -> None:
    class Cheat(Blindpost):
        async def decrypt(self, end: int, message: bytes) -> bytes:
            return b"something else"

    with pytest.raises(AssertionError, match="did not give back what was sent"):
        asyncio.run(ratchet._chain(Cheat(), b"content", 1))
    with pytest.raises(AssertionError, match="did not give back what was sent"):
        asyncio.run(ratchet._ping_pong(Cheat(), b"content", 1))


def test_every_ping_pong_message_takes_a_step() -> None:
    pair = Blindpost()
    before = [end.ratchet.root for end in pair.ends]
    asyncio.run(ratchet._ping_pong(pair, b"content", 4))
    assert all(end.ratchet.root != root for end, root in zip(pair.ends, before, strict=True))
    assert [end.ratchet.n_receive for end in pair.ends] == [1, 1]


@pytest.mark.parametrize(("arguments", "status"), [([], 64), (["nothing"], 64), (["--help"], 0)])
def test_usage_names_the_benchmarks(arguments: list[str], status: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == status
    assert "ratchet" in capsys.readouterr().err
