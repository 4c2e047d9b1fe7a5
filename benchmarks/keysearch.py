"""The verifier's search for keys: windows a second by kind, and the time for a whole disclosure.

By kind: random windows of 32 bytes, which all pass the filter, against the commitments and public keys of a made-up
directory, in one process. With `--disclosure DIR --relay-card FILE` also the whole search of that disclosure, quick and
full, over `--workers` processes: the time, and the CPU time, which another program's load changes less.
"""

import argparse
import random
import resource
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from nacl import bindings

from audit.case import open_case
from audit.disclosure import Disclosure
from audit.keysearch import QUICK, Form, KeyKind, KeySearchSettings, search_keys
from audit.keysearch.targets import Targets, Whose
from audit.keysearch.trials import Trials
from audit.keysearch.windows import candidates_of
from audit.material import load, read_card, read_material
from benchmarks.charts import Chart, bars_of
from benchmarks.machine import facts, versions
from benchmarks.processes import ServerError
from benchmarks.progress import progress
from benchmarks.report import Case, Report, new_report
from benchmarks.running import command_line, finish, guarded, parser_of

__all__ = ["main"]

_BODIES = 1_000
_PUBLIC_KEYS = 300
_WINDOWS = 20_000
_WINDOWS_ML_KEM = 2_000
_FILTER_BYTES = 8 * 1024 * 1024
_QUICK_FORMS = frozenset(Form) - {Form.DEFLATE}


def main(argv: list[str]) -> int:
    """Run the benchmark; returns the exit status."""
    return guarded(lambda: _main(argv))


def _main(argv: list[str]) -> int:
    parser = parser_of("keysearch", __doc__ or "", rounds=3)
    parser.add_argument("--disclosure", type=Path, metavar="DIR", help="search this disclosure as a whole as well")
    parser.add_argument("--relay-card", type=Path, metavar="FILE", help="the card of its relay")
    parser.add_argument("--workers", type=int, default=2, help="processes of the whole search (default 2)")
    options = parser.parse_args(argv)
    if (options.disclosure is None) != (options.relay_card is None):
        parser.error("--disclosure and --relay-card belong together")
    with tempfile.TemporaryDirectory(prefix="blindpost-bench-") as folder:
        machine = facts(Path(folder))
    found = versions((), ("numpy", "PyNaCl", "cryptography"))
    report = new_report("keysearch", command_line("keysearch", argv), options.seed, machine, found)
    generator = random.Random(options.seed)
    targets, windows = _targets(generator), [generator.randbytes(32) for _ in range(_WINDOWS)]
    with progress(options.rounds * (2 if options.disclosure else 1)) as bar:
        bar.step("by kind")
        for _ in range(options.rounds):
            _by_kind(report, targets, windows)
            bar.done()
        for _ in range(options.rounds if options.disclosure else 0):
            bar.step("a whole disclosure")
            _whole(report, options)
            bar.done()
    return finish(report, _charts(report), options.out)


def _targets(generator: random.Random) -> Targets:
    """A directory and a store's commitments, of the size of a small company's."""
    targets = Targets(chunks=True)
    for position in range(_BODIES):
        targets.commitments[generator.randbytes(32)] = position
        targets.hints[generator.randbytes(16)] = position
    for _ in range(_PUBLIC_KEYS):
        targets.x25519[bindings.crypto_scalarmult_base(generator.randbytes(32))] = Whose("a prekey")
        targets.ed25519[bindings.crypto_sign_seed_keypair(generator.randbytes(32))[0]] = Whose("a device key")
        seed = MLKEM768PrivateKey.from_seed_bytes(generator.randbytes(64))
        targets.ml_kem[seed.public_key().public_bytes_raw()] = Whose("a prekey")
    return targets


def _case(report: Report, name: str) -> Case:
    return next((case for case in report.cases if case.name == name), None) or report.case(name)


def _by_kind(report: Report, targets: Targets, windows: list[bytes]) -> None:
    block = b"".join(windows)
    for kind in KeyKind:
        if kind is KeyKind.CONTENT:
            # Tried only where a commitment was copied: there is no rate of windows.
            continue
        count = _WINDOWS_ML_KEM if kind is KeyKind.ML_KEM else len(windows)
        trials = Trials.of(targets, frozenset({kind}))
        offsets = range(0, 32 * count, 32)
        seconds = _timed(partial(_try_all, trials, block, offsets))
        case = _case(report, kind.value)
        case.add("windows", "1/s", "more", count / seconds)
        case.add("a window", "µs", "less", 1e6 * seconds / count)
    data = random.Random(0).randbytes(_FILTER_BYTES)
    seconds = _timed(lambda: len(candidates_of(data, 8).offsets))
    case = _case(report, "the filter")
    case.add("windows", "1/s", "more", _FILTER_BYTES / 8 / seconds)
    case.add("a window", "µs", "less", 1e6 * seconds * 8 / _FILTER_BYTES)


def _try_all(trials: Trials, block: bytes, offsets: range) -> int:
    return sum(1 for _ in trials.of_windows(block, offsets))


def _timed(work: Callable[[], int]) -> float:
    start_s = time.perf_counter()
    work()
    return time.perf_counter() - start_s


def _whole(report: Report, options: argparse.Namespace) -> None:
    card = read_card(load(options.relay_card, "relay card"), "relay card")
    for name, kinds, forms in (
        ("quick search", QUICK, _QUICK_FORMS),
        ("full search", frozenset(KeyKind), frozenset(Form)),
    ):
        settings = KeySearchSettings(kinds=kinds, forms=forms, workers=options.workers)
        with Disclosure(options.disclosure) as disclosure:
            opened = open_case(disclosure, card, read_material((), (), ()))
            start_s, start_cpu_s = time.perf_counter(), _cpu_s()
            coverage = search_keys(opened, settings)
            seconds, cpu_s = time.perf_counter() - start_s, _cpu_s() - start_cpu_s
            size = sum(len(view) for view in disclosure.files.values())
            opened.store = None
        if coverage.leak_count:
            raise ServerError(f"{coverage.leak_count} keys were found in {options.disclosure}")
        case = _case(report, f"{name}, {size / 1e6:,.0f} MB")
        case.add("time", "s", "less", seconds)
        case.add("CPU of all processes", "s", "less", cpu_s)
        case.add("windows filtered and tried", "1/s", "more", coverage.windows / seconds)
        case.add("windows tried", "1/s", "more", coverage.tried / seconds)


def _cpu_s() -> float:
    """CPU time of this process and of its children that have ended."""
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(one.ru_utime + one.ru_stime for one in used)


def _charts(report: Report) -> list[Chart]:
    by_kind = [case for case in report.cases if "a window" in case.metrics]
    return [bars_of(by_kind, "a window", "Time for a window, one process")]
