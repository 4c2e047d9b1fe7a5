"""`python -m audit DIR …`: the verifier's command line (docs/verifier.md).

Exit statuses: 0 BLIND, 1 NOT BLIND, 2 INCOMPLETE, 64 wrong usage, 70 a crash of the verifier.
"""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from audit.capture_audit import audit_capture
from audit.controls import read_controls
from audit.errors import DisclosureError, EvidenceError
from audit.keysearch import ALIGNMENTS, KeySearchSettings
from audit.keysearch.settings import WORKERS_MAX
from audit.material import load, read_card, read_material
from audit.report_html import render_html
from audit.report_json import render_json
from audit.report_text import render_text
from audit.verdict import EXIT_CRASH, EXIT_USAGE, Report
from audit.verifier import run

_EPILOG = """\
exit status: 0 BLIND, 1 NOT BLIND, 2 INCOMPLETE, 64 wrong usage, 70 a crash

examples:
  python -m audit disclosure --relay-card relay-card.toml
  python -m audit disclosure --relay-card relay-card.toml \\
      --commitments commitments.msgpack --volunteered ana.msgpack --volunteered bo.msgpack --html report.html
  python -m audit --capture omar.capture --relay-card relay-card.toml --log mirror
"""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(EXIT_USAGE, f"audit: {message}\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="audit",
        description="Check a relay's disclosure: is there anything in it to read?",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "directory", metavar="DIR", nargs="?", help="the disclosure; only read, links in it are not followed"
    )
    parser.add_argument(
        "--capture",
        metavar="FILE",
        help="in the place of a disclosure: the file of an interception or a pen register (section 15.6)",
    )
    parser.add_argument("--log", metavar="MIRROR", help="with --capture: a mirror of the relay's public log")
    parser.add_argument(
        "--relay-card", metavar="FILE", help="the relay's card as its people have it; without it: INCOMPLETE"
    )
    parser.add_argument(
        "--volunteered",
        metavar="FILE",
        action="extend",
        nargs="+",
        default=[],
        help="what a participant gives the verifier",
    )
    parser.add_argument(
        "--commitments", metavar="FILE", action="extend", nargs="+", default=[], help="commitments made before the run"
    )
    parser.add_argument(
        "--canary-file", metavar="FILE", action="append", default=[], help="texts to look for, one a line"
    )
    parser.add_argument(
        "--order", metavar="FILE", help="order.toml, the orderer's own times; without it taken_at is the relay's word"
    )
    parser.add_argument(
        "--earlier", metavar="DIR", help="another disclosure of this relay, made before, that this one must continue"
    )
    parser.add_argument(
        "--key-search",
        metavar="ALIGNMENT",
        type=int,
        nargs="?",
        const=8,
        choices=ALIGNMENTS,
        help="try each window of 32 bytes in memory and files as a key; alignment in memory 8 (default), 4 or 1",
    )
    parser.add_argument(
        "--workers", metavar="N", type=_workers, default=2, help="processes of the key search (default: 2)"
    )
    parser.add_argument("--thorough", action="store_true", help="search without bounds, however long it takes")
    parser.add_argument(
        "--controls", metavar="FILE", help="the mutants that this verifier was tried on, one JSON object a line"
    )
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    parser.add_argument("--html", metavar="FILE", help="write the report as one HTML page")
    parser.add_argument("--quiet", action="store_true", help="no progress on standard error")
    return parser


def _workers(text: str) -> int:
    count = int(text)
    if not 1 <= count <= WORKERS_MAX:
        raise argparse.ArgumentTypeError(f"must be 1 to {WORKERS_MAX}")
    return count


def _key_search(options: argparse.Namespace, show_progress: bool) -> KeySearchSettings | None:
    if options.key_search is None:
        return None
    return KeySearchSettings(
        options.key_search,
        workers=options.workers,
        unbounded=options.thorough,
        progress=_key_progress if show_progress else None,
    )


def _key_progress(done: int, total: int) -> None:
    sys.stderr.write(f"\r\x1b[Ksearching for keys: {done / total if total else 1:.0%} of {total / 1e6:,.0f} MB")
    sys.stderr.flush()


def _progress(title: str, position: int, total: int) -> None:
    sys.stderr.write(f"\r\x1b[K[{position}/{total}] {title}")
    sys.stderr.flush()


def _check_what(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """A disclosure or a capture, with the options that go with it."""
    if (options.directory is None) == (options.capture is None):
        parser.error("give the directory of a disclosure, or --capture FILE")
    others = (options.order, options.earlier, options.key_search, options.controls, options.html)
    if options.capture is not None and any(other is not None for other in others):
        parser.error("--order, --earlier, --key-search, --controls and --html go with a disclosure")
    if options.capture is None and options.log is not None:
        parser.error("--log goes with --capture")


def _audit_capture(options: argparse.Namespace) -> int:
    card = Path(options.relay_card) if options.relay_card else None
    report = audit_capture(
        Path(options.capture),
        read_material(
            *(
                [Path(name) for name in names]
                for names in (options.volunteered, options.commitments, options.canary_file)
            )
        ),
        read_card(load(card, "relay card"), card.name) if card else None,
        Path(options.log) if options.log else None,
        thorough=options.thorough,
    )
    colour = sys.stdout.isatty() and "NO_COLOR" not in os.environ
    sys.stdout.write(report.json() if options.json else report.text(colour=colour))
    sys.stdout.flush()
    return report.verdict.exit_status


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    parser = _parser()
    options = parser.parse_args(arguments)
    _check_what(parser, options)
    report: Report | None = None
    show_progress = sys.stderr.isatty() and not options.quiet
    try:
        if options.capture is not None:
            return _audit_capture(options)
        report = run(
            options.directory,
            card=Path(options.relay_card) if options.relay_card else None,
            volunteered=[Path(name) for name in options.volunteered],
            commitments=[Path(name) for name in options.commitments],
            canaries=[Path(name) for name in options.canary_file],
            order=Path(options.order) if options.order else None,
            earlier=options.earlier,
            thorough=options.thorough,
            key_search=_key_search(options, show_progress),
            controls=read_controls(Path(options.controls)) if options.controls else None,
            progress=_progress if show_progress else None,
        )
        if show_progress:
            sys.stderr.write("\r\x1b[K")
        if options.html:
            Path(options.html).write_text(render_html(report), encoding="utf-8")
        colour = sys.stdout.isatty() and "NO_COLOR" not in os.environ
        sys.stdout.write(render_json(report) if options.json else render_text(report, colour=colour))
        sys.stdout.flush()
    except (EvidenceError, DisclosureError) as error:
        sys.stderr.write(f"audit: {error}\n")
        return EXIT_USAGE
    except BrokenPipeError:
        # Whoever reads has read enough; Python's own flush at exit must not complain a second time.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return report.exit_status if report else EXIT_CRASH
    except OSError as error:
        sys.stderr.write(f"audit: {error.filename or 'output'}: {error.strerror}\n")
        return EXIT_USAGE
    except Exception:
        sys.stderr.write("audit: a fault of the verifier, not a verdict\n")
        traceback.print_exc()
        return EXIT_CRASH
    return report.exit_status


if __name__ == "__main__":
    sys.exit(main())
