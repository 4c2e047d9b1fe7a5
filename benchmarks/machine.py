"""What a figure was measured on."""

import os
import platform
from pathlib import Path


def describe() -> str:
    """One line: processor, cores that this process may use, system, Python."""
    return (
        f"{_processor()}, {len(os.sched_getaffinity(0))} cores, {platform.system()}, Python {platform.python_version()}"
    )


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.machine()
    named = dict(line.partition(":")[::2] for line in lines if line.startswith(("model name", "model\t", "flags")))
    fields = {name.strip(): value.strip() for name, value in named.items()}
    return f"{fields.get('model name', platform.machine())} (model {fields.get('model', '?')})"
