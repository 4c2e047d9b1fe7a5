"""Five relays, one order: where the keys are decides what is read, and the page shows it."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from blindpost.proving.generations import generations_page
from keys.identity import DeviceKeys
from sim.experiments.generations import GENERATIONS, GenerationsRun, Told, run_generations
from sim.experiments.result import Verdict
from sim.generations.protections import (
    DeviceKeyProtection,
    HostedProtection,
    ServerKeyProtection,
    device_private,
    seal,
    unseal,
)
from sim.handset import PinProtection, Protection
from sim.historical import PinMessage
from wire.envelope import body_lengths
from wire.errors import FormatError

MESSAGE = PinMessage(bytes(16), 2, bytes(16), 1, bytes(16), ("ana@acme.example",), b"tea at five <b>")


@pytest.mark.slow
def test_the_first_three_are_read_aloud_a_device_opens_the_past_of_four_and_of_the_fifth_nothing(
    tmp_path: Path,
) -> None:
    run = run_generations(tmp_path)
    assert [(told.read, told.past_opened, told.verdict) for told in run.told] == [
        (4, 3, "NOT BLIND"),
        (4, 3, "NOT BLIND"),
        (4, 3, "NOT BLIND"),
        (0, 3, "BLIND"),
        (0, 0, "BLIND"),
    ]
    assert "historical.keys" in run.told[1].failed
    assert run.result.verdict is Verdict.HOLDS
    page = generations_page(run)
    assert page.count('class="read"') == 3 * 7 + 3
    assert page.count('class="dark"') == 4 + 7
    assert "<script" not in page


@pytest.mark.parametrize(
    "protection", [PinProtection(), HostedProtection(os.urandom), ServerKeyProtection(), DeviceKeyProtection()]
)
def test_a_body_has_a_length_that_the_relay_takes_and_is_read_by_its_device_only(protection: Protection) -> None:
    device, other = DeviceKeys.generate(os.urandom), DeviceKeys.generate(os.urandom)
    body = protection.write(MESSAGE, device.entry, os.urandom)
    assert len(body) in body_lengths()
    assert protection.read(body, device) == MESSAGE
    if not isinstance(protection, PinProtection):
        with pytest.raises(FormatError):
            protection.read(body, other)


def test_a_sealed_body_that_was_changed_or_is_none_is_refused() -> None:
    device = DeviceKeys.generate(os.urandom)
    body = seal(MESSAGE, device.entry.dh_key, os.urandom)
    for bad in (body[:-1] + bytes([body[-1] ^ 1]), body[:100], b""):
        with pytest.raises(FormatError):
            unseal(bad, device_private(device))


@pytest.mark.parametrize("protection", [HostedProtection(os.urandom), ServerKeyProtection()])
def test_the_keys_of_a_server_are_not_shown_by_a_repr(protection: HostedProtection | ServerKeyProtection) -> None:
    device = DeviceKeys.generate(os.urandom)
    protection.write(MESSAGE, device.entry, os.urandom)
    assert "redacted" in repr(protection)
    assert "1 keys" in repr(protection)
    assert "\\x" not in repr(protection)


def told(at: int, read: int, past_opened: int, verdict: str) -> Told:
    return Told(GENERATIONS[at], 4, read, ("<i>text</i>",) * read, 3, past_opened, verdict, ())


TRUE = GenerationsRun(
    (
        told(0, 4, 3, "NOT BLIND"),
        told(1, 4, 3, "NOT BLIND"),
        told(2, 4, 3, "NOT BLIND"),
        told(3, 0, 3, "BLIND"),
        told(4, 0, 0, "BLIND"),
    )
)


def test_a_generation_that_is_not_read_makes_the_result_void() -> None:
    for at, other in ((0, told(0, 3, 3, "NOT BLIND")), (3, told(3, 0, 2, "BLIND")), (3, told(3, 1, 3, "NOT BLIND"))):
        changed = [*TRUE.told]
        changed[at] = other
        assert GenerationsRun(tuple(changed)).result.verdict is Verdict.VOID


def test_a_fifth_that_is_read_fails() -> None:
    for ours in (told(4, 1, 0, "NOT BLIND"), told(4, 0, 1, "BLIND"), told(4, 0, 0, "INCOMPLETE")):
        assert GenerationsRun((*TRUE.told[:4], ours)).result.verdict is Verdict.FAILS
    assert TRUE.result.verdict is Verdict.HOLDS


def test_what_was_read_cannot_write_into_the_page() -> None:
    page = generations_page(replace(TRUE))
    assert "<i>text</i>" not in page
    assert "&lt;i&gt;text&lt;/i&gt;" in page
