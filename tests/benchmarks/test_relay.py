"""`python -m benchmarks relay`: it measures a real relay, and a run that lost or doubled mail gives no figures."""

import json
import subprocess
import sys

import pytest

from benchmarks import relay as benchmark
from benchmarks.wire_device import Mail, WireDevice
from tests.relay.running import PROJECT, environment


def test_a_small_run_reports_figures_with_machine_versions_and_command() -> None:
    argv = ["--messages", "64", "--devices", "2", "--frames", "8", "--brokers", "amqtt", "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "relay", *argv],
        cwd=PROJECT,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["command"] == "python -m benchmarks relay " + " ".join(argv)
    assert report["machine"]
    assert "amqtt" in report["versions"]
    assert [(result["way"], result["messages"]) for result in report["results"]] == [("online", 64), ("drain", 64)]
    assert all(result["receipted_per_s"] > 0 for result in report["results"])


def an_exchange() -> tuple[WireDevice, WireDevice, list[Mail]]:
    """Sender and recipient after a run in which everything arrived; the receipts are checked elsewhere."""
    sender, recipient = (WireDevice(f"{name}@bench.example", bytes(16), bytes(32)) for name in ("ana", "bob"))
    mails = [sender.mail_to(recipient) for _ in range(3)]
    for number, mail in enumerate(mails, 1):
        recipient.numbers[mail.envelope.envelope_id] = number
        recipient.received[number] = mail.envelope.envelope_id
    return sender, recipient, mails


@pytest.mark.parametrize("fault", ["lost", "doubled", "foreign", "unreceipted"])
def test_a_run_with_a_fault_fails(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    sender, recipient, mails = an_exchange()
    receipted = len(mails)
    if fault == "lost":
        recipient.numbers.pop(mails[0].envelope.envelope_id)
        recipient.received.pop(1)
    elif fault == "doubled":
        recipient.doubled.append(mails[0].envelope.envelope_id)
    elif fault == "foreign":
        recipient.numbers[bytes(16)] = 4
    else:
        receipted -= 1
    monkeypatch.setattr(sender, "check_receipts", lambda: receipted)
    with pytest.raises(benchmark.LostOrDoubled):
        benchmark._check([sender], [recipient], [mails])


def test_a_failed_run_ends_with_status_1_and_no_figures(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(*_: object) -> None:
        raise benchmark.LostOrDoubled("1 of 2 envelopes arrived")

    monkeypatch.setattr(benchmark, "_run", fails)
    assert benchmark.main(["--brokers", "amqtt", "--frames", "1"]) == 1
    out, errors = capsys.readouterr()
    assert out == ""
    assert errors == "FAILED: 1 of 2 envelopes arrived\n"
