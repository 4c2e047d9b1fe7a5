"""Every command and the program that README.md shows are run here as they stand there."""

import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from audit.checks import CHECKS
from blindpost.samples import sample_mails
from sim.mutants.catalogue import CATALOGUE

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")

# Commands that open a key ask for its passphrase; a test has no terminal, so it gives the option that README names.
NEED_PASSPHRASE = {"tenant", "device", "mail", "chat", "safety-number", "receive", "volunteer"}


def commands_by_hand() -> list[list[str]]:
    block = README[README.index("<!-- by hand: a test runs these lines -->") : README.index("<!-- end -->")]
    return [shlex.split(line) for line in block.splitlines() if line.startswith("    ")]


def program() -> str:
    found = re.search(r"```python\n(.*?)```", README, re.DOTALL)
    assert found is not None
    return found[1]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_what_the_readme_shows_works_as_it_stands_there(tmp_path: Path) -> None:
    (tmp_path / "passphrase").write_text("passphrase\n")
    (tmp_path / "letter.eml").write_bytes(sample_mails()[0].raw)
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONUTF8": "1"}
    relay: subprocess.Popen[str] | None = None
    shown: dict[str, str] = {}
    try:
        for words in commands_by_hand():
            assert words[0] == "blindpost"
            arguments = [sys.executable, "-m", *words]
            if words[-1] == "&":
                relay = subprocess.Popen(
                    arguments[:-1], cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True
                )
                assert relay.stdout is not None
                assert relay.stdout.readline().startswith("ready broker=mqtt://127.0.0.1:")
                continue
            if words[1] in NEED_PASSPHRASE:
                arguments += ["--passphrase-file", "passphrase"]
            if words[1] == "receive":
                done = subprocess.run(
                    [sys.executable, "-c", program()], cwd=tmp_path, env=environment, capture_output=True, text=True
                )
                shown["program"] = done.stdout
                assert done.returncode == 0, done.stderr
                arguments[arguments.index("omar")] = "ana"
            done = subprocess.run(
                arguments, cwd=tmp_path, env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL
            )
            assert done.returncode == 0, f"{shlex.join(words)}: {done.returncode}\n{done.stdout}\n{done.stderr}"
            shown[words[1]] = done.stdout
    finally:
        if relay is not None:
            relay.send_signal(signal.SIGTERM)
            assert relay.wait(30) == 0
            assert relay.stdout is not None
            relay.stdout.close()
    assert shown["audit"].startswith("BLIND")
    assert "2 openings" in shown["volunteer"]
    assert "ana@acme.example EMAIL" in shown["program"]
    assert "ana@acme.example CHAT" in shown["program"]
    assert shown["program"].count("receipt of the relay:") == 2
    assert shown["receive"].count("]: Friday it is") == 2
    assert "<svg" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_every_page_that_the_readme_links_to_exists() -> None:
    pages = re.findall(r"\]\((docs/[a-z-]+\.md)\)", README)
    assert len(pages) >= 7
    for page in pages:
        assert (ROOT / page).is_file(), page


def test_links_between_the_pages_lead_somewhere() -> None:
    for page in (ROOT / "docs").glob("*.md"):
        for target in re.findall(r"\]\(([a-z-]+\.md)(?:#[a-z0-9-]+)?\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).is_file(), f"{page.name} links to {target}"


def test_the_numbers_of_mutants_and_checks_are_those_of_catalogue_and_verifier() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    shown = re.search(r"✓ (\d+) mutants, (\d+) caught", README)
    told = re.search(r"and (\d+) relays and clients that cheat", README)
    noted = re.search(r"`python -m sim\.mutants`: (\d+) relays and clients that cheat", changelog)
    checks = re.search(r"an independent verifier with (\d+) checks", changelog)
    assert shown is not None
    assert told is not None
    assert noted is not None
    assert checks is not None
    assert [int(number) for number in (*shown.groups(), told[1], noted[1])] == [len(CATALOGUE)] * 4
    assert int(checks[1]) == len(CHECKS)
