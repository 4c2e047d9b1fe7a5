"""The disclosure of an order: the relay's home at that moment, handed over by the relay's code, and its audit.

The store is a real SQLite file: the simulated one copied, or the rows in memory written out by relay/store/sqlite.py.
A copy is made first, so that the run goes on as if nobody had come.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import relay
from audit import Report, run
from audit.outcome import Status
from audit.report_html import render_html
from audit.report_json import render_json
from relay.disclosure import MANIFEST_NAME, sha256_of
from relay.home import Home
from relay.store.memory import MemoryStore
from relay.store.sqlite import SqliteStore
from sim.engine.disk import export
from wire.errors import BlindpostError

__all__ = ["Disclosed", "DisclosureFailed", "disclose"]

_ROOT: Final = Path(relay.__file__).resolve().parent.parent
_PROCESS_S_MAX: Final = 900.0
_LEFT_OUT: Final = ("store.sqlite*", "*.sock", "lock", "log.key", "orders", "transparency", "desk.lock")
"""Of the home: the store comes from the run, and the log's key and the docket are the desk's, not the process's."""


class DisclosureFailed(BlindpostError):
    """The relay's process did not hand over what it was ordered to."""


@dataclass(frozen=True)
class Disclosed:
    """A disclosure that was made and audited.

    Attributes:
        folder: of the order; the disclosure is in `disclosure/`, the audit beside it.
        verdict: the verifier's.
        failed: checks that failed.
        missing: checks that had not what they need.
        messages_read: contents that the verifier read.
        leakage: the declared leakage: (table, column, what it tells, values).
        bytes_handed_over: size of all its files.
        evidence: SHA-256 of its manifest.
    """

    folder: Path
    verdict: str
    failed: tuple[str, ...]
    missing: tuple[str, ...]
    messages_read: int
    leakage: tuple[tuple[str, str, str, int], ...]
    bytes_handed_over: int
    evidence: bytes


def disclose(
    home: Home,
    store: MemoryStore | Path,
    folder: Path,
    at_s: int,
    *,
    volunteered: Sequence[bytes] = (),
    commitments: bytes | None = None,
    kept_keys: Mapping[bytes, bytes] | None = None,
) -> Disclosed:
    """Hand over everything, and audit it.

    Args:
        home: the relay's; configuration, card, key and log are copied.
        store: rows in memory, or the file of a store that is at rest.
        folder: made; what comes of the order lies in it.
        at_s: the simulation's time.
        volunteered: what people give the verifier.
        commitments: to canaries.
        kept_keys: by mailbox, what a server of an older kind has in its database.

    Raises:
        DisclosureFailed: the relay's process failed.
    """
    folder.mkdir(parents=True, mode=0o700)
    copied = folder / "relay-home"
    shutil.copytree(home.path, copied, ignore=shutil.ignore_patterns(*_LEFT_OUT))
    copied_home = Home.open(copied)
    relay_id = home.card.relay_id
    if isinstance(store, Path):
        shutil.copyfile(store, copied_home.store_path)
        copied_home.store_path.chmod(0o600)
    else:
        written = SqliteStore(copied_home.store_path, relay_id)
        try:
            export(store, written)
        finally:
            written.close()
    out = folder / "disclosure"
    out.mkdir(mode=0o700)
    arguments = [str(Path(__file__).with_name("disclosing_relay.py")), str(copied), str(out), str(at_s)]
    if kept_keys is not None:
        (folder / "kept-keys.txt").write_text(
            "".join(f"{mailbox.hex()} {key.hex()}\n" for mailbox, key in sorted(kept_keys.items()))
        )
        arguments.append(str(folder / "kept-keys.txt"))
    path = os.pathsep.join(filter(None, (str(_ROOT), os.environ.get("PYTHONPATH"))))
    done = subprocess.run(
        [sys.executable, "-P", *arguments],
        env={**os.environ, "PYTHONPATH": path},
        check=False,
        capture_output=True,
        text=True,
        timeout=_PROCESS_S_MAX,
    )
    shutil.rmtree(copied)
    (folder / "kept-keys.txt").unlink(missing_ok=True)
    if done.returncode:
        raise DisclosureFailed(f"the relay's process ended with {done.returncode}: {done.stderr.strip()[-400:]}")
    report = run(
        out,
        card=home.card.to_toml().encode(),
        volunteered=list(volunteered),
        commitments=commitments,
        order=f"requested_at = {at_s}\nreceived_at = {at_s + 1}\n".encode(),
    )
    (folder / "audit.html").write_text(render_html(report), encoding="utf-8")
    (folder / "audit.json").write_text(render_json(report), encoding="utf-8")
    return _told(folder, out, report)


def _told(folder: Path, out: Path, report: Report) -> Disclosed:
    return Disclosed(
        folder,
        report.verdict.value,
        tuple(report.failed),
        tuple(outcome.about.check_id for outcome in report.outcomes if outcome.status is Status.MISSING),
        len(report.read_messages),
        tuple((row.table, row.column, row.tells, row.values) for row in report.leakage.columns),
        sum(path.stat().st_size for path in out.rglob("*") if path.is_file()),
        sha256_of(out / MANIFEST_NAME),
    )
