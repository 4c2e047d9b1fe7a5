"""A receipt speaks of one relay and one partition; of others it says nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from msgpack import unpackb  # type: ignore[import-untyped]

from audit import Verdict
from tests.audit.auditing import audit_of, missing_of
from tests.audit.honest import HonestRelay, pack


@pytest.mark.parametrize(("field", "value"), [(1, 7), (0, bytes(16))])
def test_a_receipt_of_another_partition_or_relay_convicts_nobody(tmp_path: Path, field: int, value: object) -> None:
    """The same key signs the chains of all partitions, so that its signature alone does not tell them apart."""
    relay = HonestRelay().story()
    item: list[Any] = relay.receipt_item(relay.letters[0])
    header = unpackb(item[1])
    header[field] = value
    item[1] = pack(header)
    item[2] = relay.signing_key.sign("commit", item[1])
    report = audit_of(relay, tmp_path, items=[item])
    assert report.failed == ()
    assert report.verdict is Verdict.INCOMPLETE
    assert "is another relay's or partition's" in missing_of(report)
