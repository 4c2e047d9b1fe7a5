"""`python -m audit.evidence FILE --relay-card CARD`: check one bundle of evidence, say of what it convicts the relay.

Exit statuses: 0 convicted, 1 refused (it shows nothing), 2 convicted under conditions that are printed, 64 wrong usage,
70 a crash.
"""

from __future__ import annotations

import argparse
import json
import sys
import traceback
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NoReturn

from audit import disclosure as names
from audit.disclosure import Disclosure, printable
from audit.errors import AuditError, DisclosureError, EvidenceError
from audit.evidence.proof import Conviction, prove
from audit.manifest import read_manifest
from audit.material import RelayCard, load, read_card
from audit.rows import Bytes
from audit.verdict import EXIT_CRASH, EXIT_USAGE

EXIT_CONVICTED, EXIT_REFUSED, EXIT_CONDITIONAL = 0, 1, 2
_EPILOG = """\
exit status: 0 convicted, 1 refused: it shows nothing, 2 convicted under the conditions printed, 64 wrong usage, 70 a
crash

examples:
  python -m audit.evidence hidden-3f1c.evidence --relay-card relay-card.toml
  python -m audit.evidence forked-90aa.evidence --relay-card relay-card.toml --rotations later-disclosure
"""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(EXIT_USAGE, f"evidence: {message}\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="audit.evidence",
        description="Check evidence against a relay: every signature and hash in it, and the contradiction itself. "
        "Whoever made the file is not believed.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("file", metavar="FILE", help="the evidence")
    parser.add_argument("--relay-card", metavar="FILE", required=True, help="the relay's card as its people have it")
    parser.add_argument(
        "--disclosure",
        metavar="DIR",
        action="append",
        default=[],
        help="a disclosure whose store the evidence does not carry; it is found by its hash; may be repeated",
    )
    parser.add_argument(
        "--rotations", metavar="DIR", help="a disclosure that you trust to name the relay's changes of key"
    )
    parser.add_argument("--json", action="store_true", help="print as JSON")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    options = _parser().parse_args(arguments)
    card_path = Path(options.relay_card)
    try:
        card = read_card(load(card_path, "relay card"), card_path.name)
        data = load(Path(options.file), options.file)
    except EvidenceError as error:
        sys.stderr.write(f"evidence: {error}\n")
        return EXIT_USAGE
    try:
        with ExitStack() as stack:
            stores = []
            for directory in options.disclosure:
                opened = stack.enter_context(Disclosure(Path(directory)))
                if names.STORE in opened.files:
                    stores.append(opened.files[names.STORE])
            known = _rotations_of(Path(options.rotations), card) if options.rotations else None
            return _tell(data, card, stores, known, as_json=options.json)
    except DisclosureError as error:
        sys.stderr.write(f"evidence: {error}\n")
        return EXIT_USAGE
    except Exception:
        sys.stderr.write("evidence: a fault of the verifier, not a verdict\n")
        traceback.print_exc()
        return EXIT_CRASH


def _rotations_of(directory: Path, card: RelayCard) -> tuple[bytes, ...]:
    with Disclosure(directory) as opened:
        try:
            manifest = read_manifest(opened.small(names.MANIFEST))
        except AuditError as error:
            raise DisclosureError(str(directory), str(error)) from None
        if manifest.relay_id != card.relay_id:
            raise DisclosureError(str(directory), "is another relay's")
        return manifest.rotations


def _tell(
    data: bytes,
    card: RelayCard,
    stores: Sequence[Bytes],
    known: tuple[bytes, ...] | None,
    *,
    as_json: bool,
) -> int:
    try:
        conviction = prove(data, card, stores=stores, rotations=known)
    except AuditError as error:
        reason = printable(str(error))
        print(json.dumps({"verdict": "refused", "reason": reason}) if as_json else f"REFUSED\n  {reason}")
        return EXIT_REFUSED
    print(render(conviction, as_json=as_json))
    return EXIT_CONDITIONAL if conviction.conditions else EXIT_CONVICTED


def render(conviction: Conviction, *, as_json: bool = False) -> str:
    """A conviction as text or JSON."""
    if as_json:
        return json.dumps(
            {
                "verdict": "convicted under conditions" if conviction.conditions else "convicted",
                "kind": conviction.kind.value,
                "relay_id": conviction.relay_id.hex(),
                "statement": list(conviction.statement),
                "conditions": list(conviction.conditions),
                "bundle_sha256": conviction.bundle_sha256.hex(),
            },
            indent=2,
        )
    lines = [f"CONVICTED{' UNDER CONDITIONS' if conviction.conditions else ''}: {conviction.kind.value}"]
    lines += [f"  {line}" for line in conviction.statement]
    lines += [f"  condition: {line}." for line in conviction.conditions]
    lines += [f"  relay {conviction.relay_id.hex()}", f"  evidence SHA-256 {conviction.bundle_sha256.hex()}"]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
