"""No record of secrets shows them, to `repr` or to whatever else prints objects."""

from __future__ import annotations

import importlib
import pkgutil

import pytest

from wire.codec import Record, SecretRecord, decode, encode


class _Half(SecretRecord, frozen=True):
    name: str
    private: bytes


def test_a_secret_record_shows_its_name_only() -> None:
    half = _Half("identity", b"do not show this")
    assert repr(half) == "_Half(<redacted>)"
    assert half.__rich_repr__() == []
    assert decode(_Half, encode(half), "half") == half


@pytest.mark.parametrize("room", ["wire", "keys", "client"])
def test_every_record_shows_rich_what_it_shows_repr(room: str) -> None:
    """msgspec gives each structure a `__rich_repr__` of all fields, which knows nothing of a redacting repr."""
    package = importlib.import_module(room)
    modules = [module.name for module in pkgutil.walk_packages(package.__path__, f"{room}.")]
    found = 0
    for name in modules:
        if name.endswith("__main__"):
            continue
        for kind in vars(importlib.import_module(name)).values():
            if isinstance(kind, type) and issubclass(kind, Record):
                assert kind.__rich_repr__ is Record.__rich_repr__
                found += 1
    assert found


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("keys.identity", "_StoredKey"),
        ("keys.identity", "_StoredDevice"),
        ("keys.prekeys", "_OneTime"),
        ("keys.prekeys", "_Generation"),
        ("keys.prekeys", "_Ring"),
        ("keys.ratchet", "_State"),
        ("keys.ratchet", "_SkippedRow"),
        ("keys.session", "_StoredSession"),
        ("keys.session_set", "_StoredSet"),
        ("client.store", "_Row"),
    ],
)
def test_what_is_stored_sealed_is_a_secret_record(module: str, name: str) -> None:
    assert issubclass(getattr(importlib.import_module(module), name), SecretRecord)
