"""`blindpost log`: the public log of orders: verify a mirror, prove a leaf, copy the log for a web server."""

import time
from pathlib import Path

from blindpost.errors import CommandError
from blindpost.exit_status import ExitStatus
from blindpost.files import check_absent, read_bounded, write_new
from blindpost.parser import Options, Parser, Subparsers, add_command, add_family, add_home, home_of

__all__ = ["add_commands"]

_NOTE_BYTES_MAX = 65_536


def add_commands(subparsers: "Subparsers[Parser]") -> None:
    """Add the family."""
    family = add_family(subparsers, "log", "the public log of orders and answers")
    parser = add_command(
        family,
        "verify",
        summary="check a mirror of a relay's log, from the relay's card alone",
        description=(
            "Recomputes every hash of a mirror, follows the log's key from the relay's card, and holds each leaf "
            "against the rules of the protocol. With --checkpoint, the log must also be the continuation of the one "
            "whose checkpoint you kept: without it a log that was forked before you first looked is not noticed. "
            "Ends with exit status 0 if all holds, 1 if not."
        ),
        examples=(
            "blindpost log verify relay/transparency --relay-card relay-card.toml",
            "blindpost log verify mirror --relay-card relay-card.toml --checkpoint checkpoint-of-may",
            "blindpost log verify mirror --relay-card relay-card.toml --proof order-3.tlog-proof",
            "blindpost log verify mirror --relay-card relay-card.toml --report report-2015",
        ),
        run=_verify,
    )
    parser.add_argument("mirror", type=Path, metavar="MIRROR", help="the folder with checkpoint and tiles")
    parser.add_argument("--relay-card", type=Path, metavar="FILE", required=True, help="the card, as you had it before")
    parser.add_argument("--checkpoint", type=Path, metavar="FILE", help="a checkpoint of this log that you kept")
    parser.add_argument("--proof", type=Path, metavar="FILE", help="also check this proof of a leaf (tlog-proof)")
    parser.add_argument(
        "--report", type=Path, metavar="DIR", help="also make this transparency report again and compare"
    )
    parser = add_command(
        family,
        "prove",
        summary="prove that a leaf is in the log, or that the log continues an earlier one",
        description=(
            "Writes a proof for one leaf in the format of C2SP tlog-proof, or with --from the hashes that prove that "
            "the tree of so many leaves is the beginning of the present one. The relay's keys are not needed."
        ),
        examples=(
            "blindpost log prove 3 --home relay --out order-3.tlog-proof",
            "blindpost log prove --from 2 --home relay",
        ),
        run=_prove,
    )
    parser.add_argument("index", type=int, nargs="?", metavar="LEAF", help="the leaf's number, from 0")
    parser.add_argument("--from", dest="size", type=int, metavar="SIZE", help="leaves of the earlier tree, 1 or more")
    add_home(parser, "the relay's folder")
    parser.add_argument("--out", type=Path, metavar="FILE", help="where the proof is written (default: shown)")
    parser = add_command(
        family,
        "mirror",
        summary="copy the log into a folder that a web server can serve",
        description=(
            "Copies checkpoint and tiles, and brings an older copy up to date. The checkpoint comes last, so that "
            "whoever reads meanwhile finds each tile that it names."
        ),
        examples=("blindpost log mirror --home relay --out public",),
        run=_mirror,
    )
    add_home(parser, "the relay's folder")
    parser.add_argument("--out", type=Path, metavar="DIR", required=True, help="the copy")
    parser = add_command(
        family,
        "rotate",
        summary="change the log's key",
        description=(
            "Makes another key for the log, and writes a leaf that the old and the new key sign. Readers follow it "
            "from the relay's card. For when the old key may be known: the relay's process never holds it, its disk "
            "does."
        ),
        examples=("blindpost log rotate --home relay",),
        run=_rotate,
    )
    add_home(parser, "the relay's folder")


def _rotate(options: Options) -> int:
    import os

    from blindpost.desk import now_s
    from relay.orders import Desk

    with Desk.at(home_of(options), now_s, os.urandom) as desk:
        index = desk.change_log_key()
        print(f"the log is signed by {desk.log.key.text} from leaf {index} on")
    return ExitStatus.OK


def _verify(options: Options) -> int:
    from audit.errors import AuditError
    from audit.material import CARD_BYTES_MAX, read_card
    from audit.order_log import verify_log
    from audit.tlog_proof import verify_proof
    from blindpost.transparency import check_report

    try:
        card = read_card(read_bounded(options.relay_card, "relay card", CARD_BYTES_MAX), str(options.relay_card))
    except AuditError as error:
        raise CommandError(str(error), "", ExitStatus.DATA) from None
    earlier = read_bounded(options.checkpoint, "checkpoint", _NOTE_BYTES_MAX) if options.checkpoint else None
    if not options.mirror.is_dir():
        raise CommandError(f"{options.mirror} is no folder", "", ExitStatus.NO_INPUT)
    log = verify_log(options.mirror, card, int(time.time()), earlier)
    if options.proof is not None:
        try:
            index = verify_proof(read_bounded(options.proof, "proof", _NOTE_BYTES_MAX), log)
            print(f"{options.proof}: leaf {index} is in the log of {log.size} leaves or in an earlier one of it")
        except AuditError as error:
            log.findings.append(str(error))
    if options.report is not None and log.holds:
        differing = check_report(options.report, options.mirror, card)
        log.findings += differing
        if not differing:
            print(f"{options.report}: follows from the log, byte for byte")
    for finding in log.findings:
        print(f"finding: {finding}")
    sealed = sum(order.sealed and not order.opened for order in log.orders)
    print(
        f"{log.origin or options.mirror}: {log.size} leaves, {len(log.orders)} orders, {sealed} sealed, "
        f"{sum(order.state == 'open' and order.answered_at is None for order in log.orders)} open"
    )
    if log.unknown_leaves:
        print(f"{log.unknown_leaves} leaves of types that this reader does not know were skipped")
    if not log.holds:
        print("the log does not hold")
        return ExitStatus.NOT_BLIND
    print("the log holds")
    if earlier is None:
        print("not shown: that it is the log that others see, or that you saw before; keep a checkpoint and compare")
    return ExitStatus.OK


def _prove(options: Options) -> int:
    from base64 import b64encode

    from blindpost.errors import UsageError
    from relay.logkey import LOG_FOLDER, log_key_of
    from relay.tlog import TransparencyLog

    if (options.index is None) == (options.size is None):
        raise UsageError("give a leaf's number, or --from SIZE", "")
    home = home_of(options)
    log = TransparencyLog.open(home / LOG_FOLDER, log_key_of(home))
    if options.index is not None:
        hashes = log.inclusion(options.index)
        head = f"c2sp.org/tlog-proof@v1\nindex {options.index}\n"
    else:
        hashes = log.consistency(options.size)
        head = f"consistency {options.size} {log.size}\n"
    text = head + "".join(f"{b64encode(hash_).decode()}\n" for hash_ in hashes) + "\n" + log.note
    if options.out is None:
        print(text, end="")
    else:
        write_new(options.out, text.encode(), secret=False)
        print(f"{options.out}: {len(hashes)} hashes, for the tree of {log.size} leaves")
    return ExitStatus.OK


def _mirror(options: Options) -> int:
    from relay.home import replace_file
    from relay.logkey import LOG_FOLDER, log_key_of
    from relay.tlog import TransparencyLog
    from wire.tiles import CHECKPOINT_NAME, tiles_of

    home = home_of(options)
    log = TransparencyLog.open(home / LOG_FOLDER, log_key_of(home))
    if options.out.is_file():
        check_absent(options.out)
    copied = 0
    for tile in tiles_of(0, log.size):
        target = options.out / tile.path
        if target.exists():
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        replace_file(target, (home / LOG_FOLDER / tile.path).read_bytes(), 0o644)
        copied += 1
    replace_file(options.out / CHECKPOINT_NAME, log.note.encode(), 0o644)
    print(f"{options.out}: {log.size} leaves, {copied} files copied")
    return ExitStatus.OK
