"""The commands as two people, a relay's operator and an authority type them: each a process of its own."""

from __future__ import annotations

import json
import os
import re
import secrets
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from blindpost.samples import sample_mails
from client.mail import without_bcc

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

ROOT = Path(__file__).parents[2]
PASSPHRASE = "correct horse battery staple"


@dataclass
class World:
    """A folder, a relay that runs in it, and people who type commands."""

    folder: Path
    relay: subprocess.Popen[str] | None = None
    outputs: list[str] = field(default_factory=list)

    def run(self, *words: str, status: int = 0, stdin: str | None = None) -> str:
        """Run one command to its end; its output, if it ends as it should."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("BLINDPOST")}
        done = subprocess.run(
            [sys.executable, "-m", "blindpost", *words],
            cwd=self.folder,
            env=environment | {"PYTHONPATH": str(ROOT)},
            input=stdin or "",
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == status, f"{' '.join(words)}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        self.outputs.append(done.stdout + done.stderr)
        return done.stdout if status in {0, 1, 2} else done.stderr

    def person(self, *words: str, status: int = 0, stdin: str | None = None) -> str:
        """Run one command of somebody who has a passphrase."""
        return self.run(*words, "--passphrase-file", "passphrase", status=status, stdin=stdin)

    def hear(self, name: str, *wanted: str, maildir: str = "") -> str:
        """Receive until all of that was said: on a busy machine the relay may take longer than a device waits."""
        heard = ""
        deadline = time.monotonic() + 60
        while not heard or not all(words in heard for words in wanted):
            assert time.monotonic() < deadline, f"{name} heard only {heard!r}"
            heard += self.person("receive", "--home", name, *(("--maildir", maildir) if maildir else ()))
        return heard

    def start_relay(self) -> str:
        """Start the relay and wait for its word."""
        self.relay = subprocess.Popen(
            [sys.executable, "-m", "blindpost", "relay", "run", "--home", "relay"],
            cwd=self.folder,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.relay.stdout is not None
        return self.relay.stdout.readline()

    def stop_relay(self) -> int:
        """Ask it to stop, as an init system would."""
        assert self.relay is not None
        self.relay.send_signal(signal.SIGTERM)
        status = self.relay.wait(30)
        assert self.relay.stdout is not None
        self.relay.stdout.close()
        self.relay = None
        return status


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    (tmp_path / "passphrase").write_text(PASSPHRASE + "\n")
    world = World(tmp_path)
    yield world
    if world.relay is not None:
        world.relay.kill()
        world.relay.wait()
        assert world.relay.stdout is not None
        world.relay.stdout.close()


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def delivered(folder: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted((folder / "new").iterdir(), key=lambda path: path.stat().st_mtime_ns)]


def enrol(world: World, name: str, account: str, key: str) -> None:
    world.person("tenant", "activate", "--key", key, "--account", account, "--out", f"{name}.token")
    told = world.person("device", "new", "--home", name, "--relay", "relay/relay-card.toml", "--token", f"{name}.token")
    assert re.fullmatch(rf"device [0-9a-f]{{64}} of {re.escape(account)} is enrolled\n", told)


def test_two_companies_write_to_each_other_and_an_authority_takes_everything(world: World) -> None:
    folder = world.folder
    world.run("relay", "init", "--home", "relay")
    ready = world.start_relay()
    assert re.fullmatch(r"ready broker=mqtt://127\.0\.0\.1:\d+ home=relay\n", ready)
    world.person("tenant", "add", "acme.example", "--home", "relay", "--out", "acme.key")
    world.run("tenant", "add", "globex.example", "--home", "relay", "--out", "globex.key", "--unprotected")
    enrol(world, "ana", "ana@acme.example", "acme.key")
    enrol(world, "omar", "omar@globex.example", "globex.key")
    assert mode(folder / "acme.key") == mode(folder / "ana.token") == 0o600
    assert mode(folder / "ana") == mode(folder / "relay") == 0o700

    # A second device of Omar's.
    requested = world.person(
        "device", "request", "--home", "omar-phone", "--relay", "relay/relay-card.toml", "--out", "phone.request"
    )
    code = requested.splitlines()[-1].removeprefix("code ")
    world.person(
        *("device", "approve", "--home", "omar", "phone.request", "--out", "phone.approval"),
        *("--code", "00000 00000 00000 00000 00000"),
        status=76,
    )
    assert not (folder / "phone.approval").exists()
    world.person("device", "approve", "--home", "omar", "phone.request", "--out", "phone.approval", "--code", code)
    world.person("device", "accept", "--home", "omar-phone", "phone.approval")

    # Mail, with a hidden recipient and one of 5 MiB; chat; while Omar is not there.
    bcc = next(mail.raw for mail in sample_mails() if mail.name == "bcc")
    (folder / "bcc.eml").write_bytes(bcc)
    sent = world.person(
        *("mail", "send", "--home", "ana", "--to", "omar@globex.example", "--bcc", "ana@acme.example", "bcc.eml")
    )
    assert re.match(r"message [0-9a-f]{32}\nreceipt \S+ envelope [0-9a-f]{32} number \d+ commit \d+ leaf \d", sent)
    assert sent.count("receipt omar@globex.example") == 2  # one for each of his devices
    text = "see you at nine \u0645\u0631\u062d\u0628\u0627"
    said = world.person("chat", "send", "--home", "ana", "--to", "omar@globex.example", "-", stdin=text + "\n")
    message = said.splitlines()[0].removeprefix("message ")

    heard = world.hear("omar", "see you at nine", "Mail/new/", maildir="Mail")
    assert heard.count("\n") == 2
    assert delivered(folder / "Mail") == [without_bcc(bcc)]
    assert without_bcc(bcc) != bcc
    assert world.person("receive", "--home", "omar", "--maildir", "Mail") == ""
    assert "mail" not in world.hear("omar-phone", "see you at nine")  # its mail waits for a Maildir
    world.hear("omar-phone", "Phone/new/", maildir="Phone")
    assert delivered(folder / "Phone") == [without_bcc(bcc)]

    # A reply, and what Ana's device heard of her message: delivered and read.
    world.person("chat", "send", "--home", "omar", "--to", "ana@acme.example", "--reply-to", message[:8], "yes")
    world.person("chat", "ping", "--home", "omar", "--to", "ana@acme.example")
    world.hear("ana", f"[re {message[:8]}]: yes", "PING!!!", maildir="Ana")
    assert f"message {message} chat receipted\nomar@globex.example D R\n" == world.person(
        "chat", "status", "--home", "ana", message
    )

    # The same number on both sides.
    number = world.person("safety-number", "--home", "ana", "omar@globex.example")
    assert re.fullmatch(r"((\d{5} ){3}\d{5}\n){3}", number)
    assert number == world.person("safety-number", "--home", "omar-phone", "ana@acme.example")

    # Something that waits in the relay when the order comes.
    waiting = f"the canary that waits is number {secrets.token_hex(8)}"
    world.person("canary", "--home", "ana", "--out", "ana.commitments", "-", stdin=waiting + "\n")
    world.person("chat", "send", "--home", "ana", "--to", "omar@globex.example", "-", stdin=waiting + "\n")
    (folder / "large.eml").write_bytes(b"To: omar@globex.example\n\n" + os.urandom(100_000))
    world.person("mail", "send", "--home", "ana", "--to", "omar@globex.example", "large.eml")
    world.run("order", "wholesale", "--home", "relay", "--out", "disclosure", "--memory")
    world.person("volunteer", "--home", "ana", "--out", "ana.volunteered", "--receipts", "--secrets", "--canary")
    assert mode(folder / "ana.volunteered") == 0o600
    world.person(
        *("volunteer", "--home", "omar", "--out", "omar.volunteered", "--openings", "--disclosure", "disclosure")
    )
    audit = (
        *("audit", "disclosure", "--volunteered", "ana.volunteered", "omar.volunteered", "--json"),
        *("--commitments", "ana.commitments"),
    )
    verdict = json.loads(world.run(*audit, "--relay-card", "disclosure/relay-card.toml", "--html", "verdict.html"))
    assert verdict["verdict"] == "BLIND"
    checks = {check["id"]: check for check in verdict["checks"]}
    # Everything was tried but the keys of the historical mode, which nobody here has.
    not_run = {name for name, check in checks.items() if check["status"] != "passed"}
    assert not_run == {"historical.keys", "search.windows"}
    # The text, the manifest of the large mail, its chunk, and notices, in the mailbox of one of his two devices.
    opened = checks["evidence.openings"]["figures"]
    assert opened["rows opened"] == opened["keys"] >= 3
    assert opened["canaries in opened rows"] == opened["canaries"] == 1
    assert b"<html" in (folder / "verdict.html").read_bytes()
    world.run(*audit, status=2)  # nobody says whose signature to expect
    for path in (folder / "disclosure").rglob("*"):
        assert not path.is_file() or waiting.encode() not in path.read_bytes()

    # He opened nothing by volunteering: he still receives it, on both devices.
    world.hear("omar", waiting)
    world.hear("omar-phone", waiting)

    assert world.stop_relay() == 0
    assert PASSPHRASE not in "".join(world.outputs)


def test_a_mail_of_five_mebibytes_arrives_though_the_relay_was_away(world: World) -> None:
    world.run("relay", "init", "--home", "relay")
    # Admitted before the relay has ever run: into its store.
    world.person("tenant", "add", "acme.example", "--home", "relay", "--out", "acme.key")
    world.start_relay()
    enrol(world, "ana", "ana@acme.example", "acme.key")
    enrol(world, "li", "li@acme.example", "acme.key")
    assert world.stop_relay() == 0
    mail = b"To: li@acme.example\r\nSubject: large\r\n\r\n" + os.urandom(5 * 1_048_576)
    (world.folder / "large.eml").write_bytes(mail)
    send = ("mail", "send", "--home", "ana", "--to", "li@acme.example", "large.eml")
    told = world.person(*send, "--wait", "1", status=75)
    assert "hint: the message is in the outbox: do not send it again" in told
    world.start_relay()
    world.person("receive", "--home", "ana")
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not delivered_if_any(world.folder / "Mail"):
        world.person("receive", "--home", "ana")
        world.person("receive", "--home", "li", "--maildir", "Mail")
    assert delivered(world.folder / "Mail") == [mail]


def delivered_if_any(folder: Path) -> list[bytes]:
    return delivered(folder) if folder.exists() else []


def test_what_cannot_be_done_is_said_and_changes_nothing(world: World) -> None:
    folder = world.folder
    world.run("relay", "init", "--home", "relay")
    assert "is not empty" in world.run("relay", "init", "--home", "relay", status=78)
    world.person("tenant", "add", "acme.example", "--home", "relay", "--out", "acme.key")
    key = (folder / "acme.key").read_bytes()
    assert "acme.key is there already" in world.person(
        "tenant", "add", "acme.example", "--home", "relay", "--out", "acme.key", status=73
    )
    # The domain has another key: no file is left that would look like a key of it.
    world.person("tenant", "add", "acme.example", "--home", "relay", "--out", "second.key", status=65)
    assert not (folder / "second.key").exists()
    assert (folder / "acme.key").read_bytes() == key

    (folder / "wrong").write_text("not the passphrase\n")
    activate = ("tenant", "activate", "--key", "acme.key", "--out", "ana.token")
    world.run(*activate, "--account", "ana@acme.example", "--passphrase-file", "wrong", status=77)
    told = world.person(*activate, "--account", "ana@globex.example", status=64)
    assert "ana@globex.example is no account of acme.example" in told
    assert not (folder / "ana.token").exists()

    world.person(*activate, "--account", "ana@acme.example")
    new = ("device", "new", "--home", "ana", "--relay", "relay/relay-card.toml", "--token", "ana.token")
    assert "the device is made: do not make it again" in world.person(*new, "--wait", "1", status=75)
    assert "ana is not empty" in world.person(*new, status=73)
    world.run("receive", "--home", "ana", "--passphrase-file", "wrong", status=77)
    world.person("receive", "--home", "nobody", status=78)
    world.person("mail", "send", "--home", "ana", "--to", "li@acme.example", "absent.eml", status=66)
    assert "it has no memory" in world.run(
        "order", "wholesale", "--home", "relay", "--out", "memory", "--memory", status=69
    )

    # A relay that does not run hands its store over, and Ana's device enrols as soon as it runs.
    world.run("order", "wholesale", "--home", "relay", "--out", "disclosure")
    world.run("audit", "disclosure", "--relay-card", "disclosure/relay-card.toml", "--json", status=0)
    assert "disclosure is not empty" in world.run(
        "order", "wholesale", "--home", "relay", "--out", "disclosure", status=73
    )
    world.start_relay()
    world.person("receive", "--home", "ana")
    refused = world.person("chat", "send", "--home", "ana", "--to", "nobody@acme.example", "hello", status=69)
    assert "unknown_account" in refused
