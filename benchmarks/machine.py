"""What a figure was measured on: processor, memory, disk, system, and the versions of everything that took part."""

import contextlib
import os
import platform
import re
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

__all__ = ["describe", "facts", "program", "versions"]

_PACKAGES = ("msgspec", "PyNaCl", "cryptography", "uvloop", "aiomqtt", "amqtt", "nats-py")


def describe() -> str:
    """One line: processor, cores that this process may use, system, Python."""
    return (
        f"{_processor()}, {len(os.sched_getaffinity(0))} cores, {platform.system()}, Python {platform.python_version()}"
    )


def facts(folder: Path | None = None) -> dict[str, str | int]:
    """The machine, for a result's file.

    Args:
        folder: where data is written during the run, to name its file system.
    """
    found: dict[str, str | int] = {
        "processor": _processor(),
        "architecture": platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_mib": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20,
        "system": f"{platform.system()} {platform.release()}",
        "load_before": f"{os.getloadavg()[0]:.2f}",
    }
    if folder is not None:
        found["file_system"] = _file_system(folder)
    return found


def versions(programs: Iterable[str] = (), packages: Iterable[str] = _PACKAGES) -> dict[str, str]:
    """Versions of Python, SQLite, the packages that are installed, and the programs that are found.

    Args:
        programs: `mosquitto`, `nats-server`, …
        packages: distributions.
    """
    found = {"Python": platform.python_version(), "SQLite": sqlite3.sqlite_version}
    for package in packages:
        with contextlib.suppress(PackageNotFoundError):
            found[package] = version(package)
    for name in programs:
        if (path := program(name)) is not None:
            found[name] = _version_of(path)
    return found


def program(name: str) -> str | None:
    """Where a server's program is: on the path, beside this Python, or where Debian keeps it."""
    places = [str(Path(sys.executable).parent), "/usr/sbin", "/usr/local/sbin", "/usr/lib/rabbitmq/bin"]
    places += sorted((str(path) for path in Path("/usr/lib/postgresql").glob("*/bin")), reverse=True)
    return shutil.which(name) or shutil.which(name, path=":".join(places))


def _version_of(path: str) -> str:
    # `mosquitto -h` ends with status 3; most others know --version.
    argument = {"mosquitto": "-h", "prosodyctl": "about"}.get(Path(path).name, "--version")
    try:
        told = subprocess.run([path, argument], capture_output=True, text=True, check=False, timeout=20).stdout
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    found = re.search(r"\d+(\.\d+)+", told)
    return found.group() if found else "unknown"


def _file_system(folder: Path) -> str:
    best = ("", "unknown")
    with contextlib.suppress(OSError):
        for line in Path("/proc/mounts").read_text(encoding="utf-8").splitlines():
            _device, where, kind = line.split()[:3]
            if folder.resolve().is_relative_to(where) and len(where) >= len(best[0]):
                best = where, kind
    return best[1]


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.machine()
    named = dict(line.partition(":")[::2] for line in lines if line.startswith(("model name", "model\t", "flags")))
    fields = {name.strip(): value.strip() for name, value in named.items()}
    return f"{fields.get('model name', platform.machine())} (model {fields.get('model', '?')})"
