"""No power is cut here, so nothing waits for a disk: that what is logged is durable is tried in tests/relay."""

import os

import pytest


@pytest.fixture(autouse=True)
def quick_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files are written, and not waited for."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
