"""What a relay holds: the rows of its store, and the whole state of its core, walked object by object.

    memory_of(core)        [(path, value), …]    every number, text and byte string within reach, in its order
    rows_of(store, path)   {table: rows}         every row, of the tables that a store has

The walk follows attributes, slots, fields, elements, keys, closures and bound methods; an object that was met before is
a reference to where. It knows no class of the relay by name, so an index that somebody adds is walked like the rest.
Sets have no order and are listed sorted. What is neither data nor a Python object with attributes is its type's name
alone.
"""

import random
import sqlite3
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from functools import cache
from hashlib import sha256
from pathlib import Path
from types import BuiltinMethodType, FunctionType, MethodType
from typing import Any, Final

import msgspec

from relay.core.events import (
    CommitRow,
    EnvelopeRow,
    ListRow,
    MailboxRow,
    PrekeyRow,
    RotationRow,
    TenantRow,
    TombstoneRow,
    UsedTokenRow,
)
from relay.store.protocol import Store

__all__ = ["Scalar", "memory_of", "rows_of"]

Scalar = None | bool | int | float | str | bytes

_SCALARS: Final = (type(None), bool, int, float, str, bytes)
_ROWS: Final[Mapping[str, Callable[..., Any]]] = {
    "envelopes": EnvelopeRow,
    "tombstones": TombstoneRow,
    "commits": CommitRow,
    "mailboxes": MailboxRow,
    "lists": ListRow,
    "prekeys": PrekeyRow,
    "tenants": TenantRow,
    "used_tokens": UsedTokenRow,
    "rotations": RotationRow,
}


def rows_of(store: Store, path: Path | None) -> dict[str, list[Any]]:
    """All rows of a store.

    Args:
        store: one in memory: every dictionary that it has is a table.
        path: of a SQLite store, which is read instead; None for one in memory.
    """
    if path is None:
        tables = {name: held for name, held in vars(store).items() if isinstance(held, dict)}
        return {name: [held[key] for key in sorted(held)] for name, held in sorted(tables.items())}
    with closing(sqlite3.connect(path)) as connection:
        names = [name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
        return {
            name: [_typed(name, row) for row in connection.execute(f"SELECT * FROM {name} ORDER BY rowid")]  # noqa: S608  # names of the schema
            for name in sorted(names)
        }


def _typed(table: str, row: tuple[Any, ...]) -> Any:
    kind = _ROWS.get(table)
    return row if kind is None else kind(*row)


def memory_of(root: Any) -> list[tuple[str, Scalar]]:
    """Every value that can be reached from an object, with the way to it, in the order of the walk."""
    found: list[tuple[str, Scalar]] = []
    met: dict[int, int] = {}
    # Keeps what was met alive, so that no id is given twice.
    kept: list[Any] = []
    todo: list[tuple[str, Any]] = [("core", root)]
    while todo:
        path, value = todo.pop()
        if isinstance(value, _SCALARS):
            found.append((path, value))
            continue
        number = met.get(id(value))
        if number is not None:
            found.append((path, f"object {number}"))
            continue
        met[id(value)] = len(met)
        kept.append(value)
        found.append((f"{path}:type", type(value).__qualname__))
        # Last in, first out: the walk goes into the first member first.
        members = [(f"{path}{name}", member) for name, member in _members(value)]
        todo.extend(reversed(members))
    return found


def _members(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for at, (key, held) in enumerate(value.items()):
            yield f"{{{at}}}.key", key
            yield f"{{{at}}}", held
    elif isinstance(value, (set, frozenset)):
        yield from ((f"{{{at}}}", member) for at, member in enumerate(sorted(value, key=repr)))
    elif isinstance(value, (list, tuple, deque)) and not hasattr(value, "_fields"):
        yield from ((f"[{at}]", member) for at, member in enumerate(value))
    elif isinstance(value, random.Random):
        yield ".state", sha256(repr(value.getstate()).encode()).digest()
    elif isinstance(value, (MethodType, BuiltinMethodType)):
        yield ".name", value.__qualname__
        yield ".self", value.__self__
    elif isinstance(value, FunctionType):
        yield ".name", value.__qualname__
        for at, cell in enumerate(value.__closure__ or ()):
            yield f".cell[{at}]", cell.cell_contents
    elif isinstance(value, type):
        yield ".name", value.__qualname__
    elif isinstance(value, bytearray):
        yield ".bytes", bytes(value)
    else:
        yield from _attributes(value)


def _attributes(value: Any) -> Iterator[tuple[str, Any]]:
    for name in _names_of(_class_of(value)):
        if hasattr(value, name):
            yield f".{name}", getattr(value, name)
    for name, held in getattr(value, "__dict__", {}).items():
        yield f".{name}", held


def _class_of(value: object) -> type:
    return type(value)


@cache
def _names_of(kind: type) -> tuple[str, ...]:
    """Slots and fields of a class and of those above it."""
    if issubclass(kind, msgspec.Struct):
        return kind.__struct_fields__
    if hasattr(kind, "_fields"):
        return tuple(kind._fields)
    names: list[str] = []
    for above in reversed(kind.__mro__):
        slots = above.__dict__.get("__slots__", ())
        names += [slots] if isinstance(slots, str) else list(slots)
    return tuple(
        name if not name.startswith("__") or name.endswith("__") else f"_{kind.__name__.lstrip('_')}{name}"
        for name in names
        if name not in {"__dict__", "__weakref__"}
    )
