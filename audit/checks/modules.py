"""The relay's process has loaded nothing that could open a body (protocol.md section 11, `process`)."""

from __future__ import annotations

import sys
from typing import Final

from audit.case import Case
from audit.disclosure import printable
from audit.outcome import About, Outcome

ABOUT = About(
    "process.modules",
    "the relay's process has loaded no code that opens messages",
    "As the relay signs it: no ratchet, vault, client or simulator is among its modules, and each has a hash to "
    "compare.",
    "That the machine runs this code: the list is signed testimony. Compare the hashes with a release.",
    "11",
)
FORBIDDEN: Final = frozenset({"keys", "client", "sim", "audit", "blindpost", "benchmarks", "tests"})
FORBIDDEN_PARTS: Final = ("ratchet", "vault", "escrow")
OURS: Final = frozenset({"relay", "wire", "__main__", "__mp_main__"})
KNOWN: Final = frozenset(
    # What the relay declares as its dependencies, and what these load.
    {
        "_cffi_backend", "aiomqtt", "amqtt", "cffi", "cryptography", "dacite", "docopt", "idna", "markdown_it", "mdurl",
        "msgspec", "nacl", "nats", "paho", "passlib", "psutil", "pygments", "rich", "setproctitle", "transitions",
        "typer", "typing_extensions", "uvloop", "websockets", "yaml", "_yaml", "six", "click", "shellingham",
        "pycparser", "_distutils_hack", "_sodium", "sitecustomize", "usercustomize",
    }
)  # fmt: skip
EDITABLE: Final = "__editable__"
"""Made by setuptools for a project that is installed in place."""
ZERO_HASH: Final = bytes(32)


def check(case: Case, outcome: Outcome) -> None:
    """Sort modules into ours, known, the standard library's, and the rest."""
    if case.manifest is None:
        outcome.miss("a manifest that can be read")
        return
    modules = case.manifest.modules
    if not modules:
        outcome.miss("the list of loaded modules")
        return
    standard = sys.stdlib_module_names
    unknown = set()
    counts = {"ours": 0, "standard library": 0, "known packages": 0, "unknown": 0}
    for name, digest in modules:
        top = name.partition(".")[0]
        shown = printable(name)
        if top in FORBIDDEN or any(part in name.lower() for part in FORBIDDEN_PARTS):
            outcome.fail(shown, "is loaded in the relay's process, and must not be")
        elif top in OURS:
            counts["ours"] += 1
            if digest == ZERO_HASH and top in {"relay", "wire"}:
                outcome.fail(shown, "has no file that could be hashed")
        elif top in standard:
            counts["standard library"] += 1
        elif top in KNOWN or top.startswith(EDITABLE):
            counts["known packages"] += 1
        else:
            counts["unknown"] += 1
            unknown.add(printable(top))
    if not any(name.partition(".")[0] == "relay" for name, _ in modules):
        outcome.miss("the modules of a relay: this list has none of them")
    if unknown:
        outcome.note(f"packages that this verifier does not know: {', '.join(sorted(unknown)[:20])}")
    outcome.note("whether the modules' hashes are those of a release")
    outcome.figures.update({"modules": len(modules), **counts})
    outcome.evidence = (
        f"Python {printable(case.manifest.python_version)}, {len(modules)} modules: {counts['ours']} of the relay, "
        f"{counts['standard library']} of the standard library, {counts['known packages']} known, "
        f"{counts['unknown']} unknown"
    )
