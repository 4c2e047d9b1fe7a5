"""The verifier: time and memory by the size of the disclosure.

A relay's store is filled with real rows (benchmarks/filling.py), handed over by `python -m relay disclose`, and read by
`python -m audit` in a process of its own. The verdict must be that nothing can be read; any other fails the run.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.charts import Chart, Lines
from benchmarks.filling import FILLER_TENANT, fill
from benchmarks.machine import facts, versions
from benchmarks.processes import ServerError
from benchmarks.progress import progress
from benchmarks.report import Case, Report, new_report
from benchmarks.running import command_line, finish, guarded, parser_of, words_of
from wire.signing import SigningKey

__all__ = ["main"]


def main(argv: list[str]) -> int:
    """Run the benchmark; returns the exit status."""
    return guarded(lambda: _main(argv))


def _main(argv: list[str]) -> int:
    parser = parser_of("audit", __doc__ or "", rounds=3)
    levels = ["1000", "10000", "100000"]
    parser.add_argument("--envelopes", type=words_of, default=levels, help=f"disclosed (default {','.join(levels)})")
    parser.add_argument("--body-bytes", type=int, default=1_232, help="of each envelope (default 1232)")
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="blindpost-bench-") as folder:
        machine = facts(Path(folder))
    found = versions((), ("msgpack", "PyNaCl", "cryptography"))
    report = new_report("audit", command_line("audit", argv), options.seed, machine, found)
    with progress(len(options.envelopes) * options.rounds) as bar:
        for words in options.envelopes:
            envelopes = int(words)
            with tempfile.TemporaryDirectory(prefix="blindpost-bench-") as folder:
                bar.step(f"{envelopes:,} envelopes: making the disclosure")
                disclosure, card = _disclosure(Path(folder), envelopes, options.body_bytes)
                size = sum(path.stat().st_size for path in disclosure.rglob("*") if path.is_file())
                case = report.case(f"{envelopes:,} envelopes", envelopes=envelopes, disclosure_bytes=size)
                for number in range(options.rounds):
                    bar.step(f"{case.name}, round {number + 1}")
                    _round(case, disclosure, card, envelopes, size)
                    bar.done()
    return finish(report, charts(report), options.out)


def _disclosure(folder: Path, envelopes: int, body_bytes: int) -> tuple[Path, Path]:
    home, out = folder / "home", folder / "disclosure"
    _relay("init", "--home", home)
    _relay("tenant-add", FILLER_TENANT, SigningKey(os.urandom(32)).public.hex(), "--home", home)
    fill(home, max(1, envelopes // 10), envelopes, body_bytes)
    out.mkdir()
    _relay("disclose", "--home", home, "--out", out)
    return out, home / "relay-card.toml"


def _relay(*arguments: object) -> None:
    command = [sys.executable, "-m", "relay", *(str(one) for one in arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ServerError(f"relay {arguments[0]}: {done.stderr.strip()[-400:]}")


def _round(case: Case, disclosure: Path, card: Path, envelopes: int, size: int) -> None:
    command = [sys.executable, "-m", "audit", str(disclosure), "--relay-card", str(card)]
    start_s = time.perf_counter()
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.perf_counter() - start_s
        if process.returncode:
            output.seek(0)
            words = output.read().decode(errors="replace")[:800]
            raise ServerError(f"the verifier ended with status {process.returncode}: {words}")
    cpu_s = used.ru_utime + used.ru_stime
    case.add("time", "s", "less", seconds)
    case.add("CPU", "µs/envelope", "less", cpu_s * 1e6 / envelopes)
    case.add("disclosure read", "MB/s", "more", size / 1e6 / seconds)
    case.add("most memory, RSS", "MiB", "less", used.ru_maxrss / 1_024)


def charts(report: Report) -> list[Chart]:
    """Time and memory over the size."""
    found: list[Chart] = []
    for metric, title in (("time", "Time of an audit"), ("most memory, RSS", "Most memory of an audit (RSS)")):
        points = [
            (float(case.dimensions["envelopes"]), case.metrics[metric].median, case.metrics[metric].rounds)
            for case in report.cases
        ]
        unit = report.cases[0].metrics[metric].unit
        found.append(Lines(title, "envelopes disclosed", unit, {"python -m audit": points}))
    return found
