"""What the relay holds about one person: the one schema behind the subscriber answer, the person's copy and the docs.

Each column of the store that says something about a person stands here once, with its meaning, its resolution, and who
else sees it. `relay/held.py` collects exactly these columns, `read_held` refuses a record with any other, and a test
holds the schema against the store's tables, so that no column can be left out. An authority and the person get the same
bytes: canonical MessagePack `[1, account, [[table, [column, …], [[value, …], …]], …]]`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Annotated, Any, Final

from msgspec import Meta

from wire.codec import Record, decode, encode
from wire.errors import FormatError
from wire.identity import Account
from wire.limits import HELD_BYTES_MAX

__all__ = [
    "HELD",
    "Held",
    "HeldColumn",
    "HeldTable",
    "TableRows",
    "column_names",
    "held_markdown",
    "held_text",
    "read_held",
]

ROWS_MAX: Final = 1_000_000
_VALUE_BYTES_MAX: Final = 8_192
_VALUES_SHOWN: Final = 3

Name = Annotated[str, Meta(min_length=1, max_length=64)]


@dataclass(frozen=True, slots=True)
class HeldColumn:
    """One column.

    Args:
        name: as in the store.
        meaning: what it says about the person.
        resolution: how exactly.
        seen_by: who sees it beside the relay and whoever orders it.
        words: how a number of it is said to people; None: as it stands.
    """

    name: str
    meaning: str
    resolution: str
    seen_by: str
    words: Callable[[int], str] | None = None


@dataclass(frozen=True, slots=True)
class HeldTable:
    """One table of the store.

    Args:
        name: as in the store.
        columns: those that are about a person, in the store's order.
    """

    name: str
    columns: tuple[HeldColumn, ...]


def _day(number: int) -> str:
    try:
        return date.fromordinal(_UNIX_DAY + number).isoformat()
    except (ValueError, OverflowError):
        return str(number)


def _moment(time_s: int) -> str:
    try:
        return datetime.fromtimestamp(time_s, UTC).strftime("%Y-%m-%d %H:%MZ")
    except (ValueError, OverflowError, OSError):
        return str(time_s)


def _one_of(*words: str) -> Callable[[int], str]:
    """Words for 0, 1, 2, …"""
    return lambda number: words[number] if 0 <= number < len(words) else str(number)


_UNIX_DAY: Final = date(1970, 1, 1).toordinal()
_ROW = HeldColumn("seq", "in which order rows of this table were made", "order only", "nobody")
_CORRESPONDENTS = "whoever writes to the person"

HELD: tuple[HeldTable, ...] = (
    HeldTable(
        "mailboxes",
        (
            _ROW,
            HeldColumn("mailbox", "a random name of the device's queue", "exact", _CORRESPONDENTS),
            HeldColumn("device_key", "the device's public key", "exact", _CORRESPONDENTS),
            HeldColumn("account", "the person's address", "exact", _CORRESPONDENTS),
            HeldColumn("enrolled_day", "when the device was enrolled", "day", "nobody", _day),
            HeldColumn("newest", "how much mail the device has had that is gone", "count", "the person's devices"),
            HeldColumn("closed", "whether the device was removed", "yes or no", _CORRESPONDENTS, _one_of("no", "yes")),
        ),
    ),
    HeldTable(
        "lists",
        (
            _ROW,
            HeldColumn("account", "the person's address", "exact", _CORRESPONDENTS),
            HeldColumn("version", "how often the person's devices changed", "count", _CORRESPONDENTS),
            HeldColumn("signed_list", "the devices, with their keys and mailboxes", "exact", _CORRESPONDENTS),
        ),
    ),
    HeldTable(
        "prekeys",
        (
            _ROW,
            HeldColumn("device_key", "whose prekey it is", "exact", _CORRESPONDENTS),
            HeldColumn(
                "kind",
                "signed, last-resort or one-time",
                "exact",
                _CORRESPONDENTS,
                _one_of("0", "signed", "last-resort", "one-time"),
            ),
            HeldColumn("id", "a random name of the prekey", "exact", _CORRESPONDENTS),
            HeldColumn("record", "a public key; how many one-time keys are left", "exact", _CORRESPONDENTS),
        ),
    ),
    HeldTable(
        "envelopes",
        (
            _ROW,
            HeldColumn("mailbox", "for which device", "exact", "the sender"),
            HeldColumn("number", "the how manieth of that device", "count", "the sender, by the receipt"),
            HeldColumn("envelope_id", "a random name", "exact", "the sender"),
            HeldColumn("expiry", "until when it waits", "hour, as senders round it", "the sender", _moment),
            HeldColumn(
                "commit_index", "with which commit it came; a commit has a time", "millisecond", "others of that commit"
            ),
            HeldColumn("leaf", "its place in that commit", "exact", "the sender"),
            HeldColumn("body_bytes", "its padded size", "padding step", "the sender"),
        ),
    ),
    HeldTable(
        "tombstones",
        (
            _ROW,
            HeldColumn("key", "a hash of mailbox and envelope id", "exact", "nobody"),
            HeldColumn("mailbox", "for which device it was", "exact", "nobody"),
            HeldColumn("expiry", "until when it would have waited", "hour, as senders round it", "the sender", _moment),
            HeldColumn(
                "commit_index", "with which commit it came; a commit has a time", "millisecond", "others of that commit"
            ),
            HeldColumn("leaf", "its place in that commit", "exact", "the sender"),
            HeldColumn("number", "the how manieth of that device", "count", "the sender, by the receipt"),
            HeldColumn(
                "reason",
                "acknowledged, withdrawn or closed",
                "exact",
                "nobody",
                _one_of("0", "acknowledged", "withdrawn", "3", "closed"),
            ),
            HeldColumn("token", "the ack token that was shown", "exact", "nobody"),
        ),
    ),
)
"""All tables that name a person, a device or a mailbox of one. Not here: bodies (ciphertext), and what names nobody."""


class TableRows(Record, frozen=True):
    """The rows of one table."""

    table: Name
    columns: Annotated[tuple[Name, ...], Meta(max_length=64)]
    rows: Annotated[tuple[tuple[Any, ...], ...], Meta(max_length=ROWS_MAX)]


class Held(Record, frozen=True, tag=1):
    """All that is held about one account."""

    account: Account
    tables: Annotated[tuple[TableRows, ...], Meta(max_length=64)]

    @property
    def data(self) -> bytes:
        """The bytes that a person and an authority get."""
        return encode(self)

    @property
    def row_count(self) -> int:
        """How many rows in all."""
        return sum(len(table.rows) for table in self.tables)


def column_names() -> tuple[str, ...]:
    """Every column as `table.column`."""
    return tuple(f"{table.name}.{column.name}" for table in HELD for column in table.columns)


def read_held(data: bytes) -> Held:
    """Read a record and hold it against the schema.

    Raises:
        FormatError: no such record, or it has more or less than the schema.
    """
    if len(data) > HELD_BYTES_MAX:
        raise FormatError("held record", f"has {len(data)} bytes", HELD_BYTES_MAX)
    held = decode(Held, data, "held record")
    tables = [table.table for table in held.tables]
    if tables != [table.name for table in HELD]:
        raise FormatError("held record", "has other tables than the schema")
    for found, wanted in zip(held.tables, HELD, strict=True):
        if found.columns != tuple(column.name for column in wanted.columns):
            raise FormatError(f"held record {wanted.name}", "has other columns than the schema")
        if any(len(row) != len(found.columns) for row in found.rows):
            raise FormatError(f"held record {wanted.name}", "has a row of another length", len(found.columns))
        # msgspec has no union of text and bytes: what a value may be is checked here.
        if any(type(value) not in {int, str, bytes} for row in found.rows for value in row):
            raise FormatError(f"held record {wanted.name}", "has a value that no column of the store has")
        if any(type(value) is not int and len(value) > _VALUE_BYTES_MAX for row in found.rows for value in row):
            raise FormatError(f"held record {wanted.name}", "has a value that is too long", _VALUE_BYTES_MAX)
    return held


def held_text(held: Held) -> str:
    """A record for people: each table with its columns' meanings, and the first values of each; the record has all."""
    lines = [f"What the relay holds about {held.account}"]
    columns = {table.name: table.columns for table in HELD}
    for table in held.tables:
        count = len(table.rows)
        lines += [
            "",
            f"{table.table}: {'1 row' if count == 1 else f'{count} rows'}{'' if count else ', which would say'}",
        ]
        for place, column in enumerate(columns[table.table]):
            lines.append(f"  {column.name}: {column.meaning} ({column.resolution}; also seen by {column.seen_by})")
            if count:
                lines.append(f"    {_values([row[place] for row in table.rows], column)}")
    return "\n".join(lines) + "\n"


def held_markdown() -> str:
    """The table of the docs."""
    lines = ["| table | column | what it says | resolution | also seen by |", "| --- | --- | --- | --- | --- |"]
    lines += [
        f"| {table.name} | {column.name} | {column.meaning} | {column.resolution} | {column.seen_by} |"
        for table in HELD
        for column in table.columns
    ]
    return "\n".join(lines) + "\n"


def _values(values: list[int | str | bytes], column: HeldColumn) -> str:
    if len(values) > 1 and values.count(values[0]) == len(values):
        return f"{_shown(values[0], column)} in each row"
    more = f" and {len(values) - _VALUES_SHOWN} more" if len(values) > _VALUES_SHOWN else ""
    return ", ".join(_shown(value, column) for value in values[:_VALUES_SHOWN]) + more


def _shown(value: int | str | bytes, column: HeldColumn) -> str:
    if isinstance(value, bytes):
        return value[:24].hex() + ("…" if len(value) > 24 else "")
    if isinstance(value, int) and column.words is not None:
        return column.words(value)
    return str(value)
