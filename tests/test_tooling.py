"""What setting up relies on: the lock is exact and complete, and the Makefile has the targets that the docs name."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
LOCK = (ROOT / "requirements.lock").read_text(encoding="utf-8")
PIN = re.compile(r"^(?P<name>[a-z0-9][a-z0-9._-]*)==(?P<version>[0-9][^\s;]*)(?: ; (?P<marker>[^\\]+?))? \\$")


def _entries(lock: str) -> list[str]:
    """Return the lock's requirements, each with its hash lines, comments left out."""
    lines = [line for line in lock.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    return re.split(r"\n(?=\S)", "\n".join(lines))


def _locked_names() -> set[str]:
    pins = (PIN.match(entry.splitlines()[0]) for entry in _entries(LOCK))
    return {_canonical(pin["name"]) for pin in pins if pin}


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _project() -> dict[str, Any]:
    with (ROOT / "pyproject.toml").open("rb") as file:
        return tomllib.load(file)


@pytest.mark.parametrize("entry", _entries(LOCK), ids=lambda entry: re.split("[=\n]", entry)[0])
def test_each_lock_entry_is_one_exact_pin_with_hashes(entry: str) -> None:
    pin, *hashes = entry.splitlines()
    assert PIN.match(pin), pin
    assert hashes
    for line in hashes:
        assert re.fullmatch(r"    --hash=sha256:[0-9a-f]{64}(?: \\)?", line), line


def test_lock_names_no_place() -> None:
    assert not re.search(r"://|^-|^\s*(?:/|file:)| @ |--(?:index|extra-index|find-links|trusted)", LOCK, re.MULTILINE)


def test_lock_serves_other_machines() -> None:
    """A package with compiled code has a file for each platform and Python, not only for the one it was locked on."""
    hashes = {entry.split("==")[0]: entry.count("--hash=") for entry in _entries(LOCK)}
    for name in ("cryptography", "msgspec", "msgpack", "pynacl", "uvloop", "cffi"):
        assert hashes[name] > 10, name


def test_all_dependencies_are_locked() -> None:
    project = _project()
    declared = [
        *project["project"]["dependencies"],
        *project["dependency-groups"]["dev"],
        *project["build-system"]["requires"],
    ]
    names = {_canonical(re.split(r"[^A-Za-z0-9._-]", requirement)[0]) for requirement in declared}
    assert names <= _locked_names()


def test_every_room_is_type_checked_and_under_an_import_rule() -> None:
    """No package at the top level was added past the checks."""
    rooms = {path.parent.name for path in ROOT.glob("[a-z]*/__init__.py")}
    tool = _project()["tool"]
    assert set(tool["mypy"]["packages"]) == rooms
    assert set(tool["importlinter"]["root_packages"]) == rooms
    ruled = {room for rule in tool["importlinter"]["contracts"] for room in rule.get("source_modules", [])}
    assert rooms - {"tests"} <= ruled


@pytest.mark.parametrize(
    "target", ["help", "setup", "demo", "test", "lint", "format", "lock", "clean", "coverage-gate"]
)
def test_makefile_has_target(target: str) -> None:
    # --question runs nothing; 2 is make's answer to a target that it does not know.
    done = subprocess.run(["make", "--question", target], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode in {0, 1}, done.stderr


def test_scripts_for_ci_are_executable() -> None:
    for script in (ROOT / ".ci").iterdir():
        assert script.stat().st_mode & 0o111, script
        assert script.read_text(encoding="utf-8").startswith("#!/usr/bin/env bash\n")
