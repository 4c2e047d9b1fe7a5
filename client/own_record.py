"""What the relay holds about the own account: asked for in pieces, put together, checked (protocol.md 6.3, 6.4).

The relay makes the record at one moment and gives it piece by piece; its SHA-256 is named with each. It is believed if
it has that hash, is a record of exactly the schema, and of this account and this device: a relay that leaves out a
column or a table, or gives another person's record, is found out. One that leaves out rows about which this device
knows nothing is not: what was disclosed to others can be compared with it later, byte by byte.
"""

from hashlib import sha256
from typing import Final

from client.errors import RecordFalse, Unknown
from client.link import RecordPieceEvent
from client.running import Running
from client.state import State
from wire.commands import AskRecord
from wire.errors import FormatError
from wire.held import Held, read_held
from wire.limits import HASH_BYTES, HELD_PIECE_BYTES_MAX

__all__ = ["check_own", "own_record"]

_NEW: Final = bytes(HASH_BYTES)
_WHAT: Final = "what is held about this account"
# A relay forgets a record that is fetched too slowly, and begins with a new one: that often, and then it is too slow.
_BEGINNINGS_MAX: Final = 4


async def own_record(running: Running, wait_s: float | None) -> Held:
    """Ask the relay for all that it holds about the own account.

    Raises:
        NotEnrolled: this device has no account yet.
        Refused: this device may not ask, or the record is larger than 64 MiB.
        RecordFalse: it is not a record of this account and device.
        Unknown: not within `wait_s` seconds, for all pieces together.
    """
    state = running.state
    account, mailbox = state.account, state.keys.mailbox
    data = await running.within(_fetched(running, mailbox), _WHAT, wait_s)
    try:
        held = read_held(data)
    except FormatError as error:
        raise RecordFalse(str(error)) from error
    if held.account != account:
        raise RecordFalse("it is another account's")
    check_own(held, running.state)
    return held


async def _fetched(running: Running, mailbox: bytes) -> bytes:
    await running.until(running.is_enrolled, _WHAT, None)
    piece = await _piece(running, mailbox, _NEW, 0)
    for _ in range(_BEGINNINGS_MAX):
        first, parts, have = piece, [], 0
        while piece.record == first.record:
            _check_place(piece, first.total, have)
            parts.append(piece.piece)
            have += len(piece.piece)
            if have == first.total:
                data = b"".join(parts)
                if sha256(data).digest() != first.record:
                    raise RecordFalse("its bytes have another hash than it was given under")
                return data
            piece = await _piece(running, mailbox, first.record, have)
        # The relay has forgotten the one before, and this is the beginning of another.
    raise Unknown(_WHAT, "the relay forgets the record before all of it has come")


async def _piece(running: Running, mailbox: bytes, record: bytes, offset: int) -> RecordPieceEvent:
    answer = await running.engine.ask(_WHAT, lambda ref: AskRecord(ref, mailbox, record, offset))
    if not isinstance(answer, RecordPieceEvent):
        raise RecordFalse("the relay answered something else")
    return answer


def _check_place(piece: RecordPieceEvent, total: int, offset: int) -> None:
    if (piece.total, piece.offset) != (total, offset):
        raise RecordFalse(f"a piece is of {piece.total} bytes from {piece.offset}, not of {total} from {offset}")
    if len(piece.piece) != min(HELD_PIECE_BYTES_MAX, total - offset):
        raise RecordFalse(f"a piece has {len(piece.piece)} bytes")


def check_own(held: Held, state: State) -> None:
    """Hold a record against what this device knows: it is on it, and every row is of the account.

    Raises:
        RecordFalse: it is not.
    """
    mailboxes = _column(held, "mailboxes", "mailbox")
    devices = _column(held, "mailboxes", "device_key")
    if (state.keys.public, state.keys.mailbox) not in set(zip(devices, mailboxes, strict=True)):
        raise RecordFalse("this device is not in it")
    for table, column, own in (
        ("mailboxes", "account", {held.account}),
        ("lists", "account", {held.account}),
        ("prekeys", "device_key", set(devices)),
        ("envelopes", "mailbox", set(mailboxes)),
        ("tombstones", "mailbox", set(mailboxes)),
    ):
        if not own.issuperset(_column(held, table, column)):
            raise RecordFalse(f"{table}: a row is another account's")


def _column(held: Held, table: str, column: str) -> list[int | str | bytes]:
    rows = next(one for one in held.tables if one.table == table)
    place = rows.columns.index(column)
    return [row[place] for row in rows.rows]
