"""The signed statement: the same inputs give the same bytes, and a change or another key is noticed."""

import base64
import json
import stat
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from blindpost.proving import statement
from blindpost.proving.statement import (
    Statement,
    directory_digest,
    load_signing_key,
    new_signing_key,
    overall,
    read_public_key,
    read_statement,
)
from sim.experiments.result import Control, Figure, Result, Verdict
from wire.errors import FormatError, SignatureError

AUDIT: dict[str, Any] = {
    "verdict": "BLIND",
    "exit_status": 0,
    "relay_id": "00",
    "taken_at": 7,
    "bytes": {"log/relay.log": {"log": 10}},
    "checks": [{"id": "log.grammar", "status": "passed", "findings": []}],
    "duration_s": 1.5,
}
CAUGHT = Control("twin", "cheats", caught=True, how="seen")
RESULT = Result("game", "C1", "It holds.", True, {"seed": 1}, (Figure("advantage", 0.001),), (CAUGHT,), ("time",))
STATEMENT = Statement([("disclosure", {"dirHash": "ab"})], [("b", "2"), ("a", "1")], AUDIT, [RESULT])


def test_the_same_inputs_give_the_same_bytes_and_no_duration() -> None:
    again = Statement(
        [("disclosure", {"dirHash": "ab"})], [("a", "1"), ("b", "2")], {**AUDIT, "duration_s": 9}, [RESULT]
    )
    assert again.payload == STATEMENT.payload
    assert again.digest == STATEMENT.digest
    assert b"duration" not in STATEMENT.payload


def test_the_payload_is_an_in_toto_statement_of_what_was_examined() -> None:
    payload = json.loads(STATEMENT.payload)
    assert payload["_type"] == "https://in-toto.io/Statement/v1"
    assert payload["subject"] == [{"name": "disclosure", "digest": {"dirHash": "ab"}}]
    predicate = payload["predicate"]
    assert predicate["verdict"] == "holds"
    assert predicate["experiments"][0]["figures"] == [{"name": "advantage", "value": 0.001, "unit": ""}]
    assert set(predicate["verifier"]["digest"]) == {"audit", "blindpost", "client", "keys", "relay", "sim", "wire"}


def test_a_directorys_digest_is_what_a_shell_computes_and_sees_names_and_bytes(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "x").write_bytes(b"one")
    (tmp_path / "a").write_bytes(b"two")
    (tmp_path / "link").symlink_to(tmp_path / "a")
    command = "find * -type f | LC_ALL=C sort | xargs sha256sum | sha256sum"
    shell = subprocess.run(command, shell=True, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    first = directory_digest(tmp_path)
    assert shell.split()[0] == first
    (tmp_path / "a").rename(tmp_path / "c")
    second = directory_digest(tmp_path)
    (tmp_path / "c").write_bytes(b"twO")
    assert len({first, second, directory_digest(tmp_path)}) == 3
    assert directory_digest(tmp_path, "x") != first


def test_a_statement_is_read_back_by_whoever_has_the_public_key(tmp_path: Path) -> None:
    key = new_signing_key(tmp_path / "key")
    assert stat.S_IMODE((tmp_path / "key").stat().st_mode) == 0o600
    path = tmp_path / "statement.json"
    path.write_bytes(STATEMENT.signed(load_signing_key(tmp_path / "key")))
    payload, said = read_statement(path, read_public_key(tmp_path / "key.pub"))
    assert payload == STATEMENT.payload
    assert said == json.loads(payload)
    secret = (tmp_path / "key").read_text().split()[1]
    assert secret not in repr(key)
    assert "redacted" in repr(key)


def test_attack_changed_payload_other_type_other_key_and_no_signature_are_refused(tmp_path: Path) -> None:
    key, other = new_signing_key(tmp_path / "key"), new_signing_key(tmp_path / "other")
    path = tmp_path / "statement.json"
    public = read_public_key(tmp_path / "key.pub")
    envelope = json.loads(STATEMENT.signed(key))
    changed = STATEMENT.payload.replace(b'"holds"', b'"fails"')
    assert changed != STATEMENT.payload
    for bad in (
        {**envelope, "payload": base64.b64encode(changed).decode()},
        {**envelope, "payloadType": "application/json"},
        {**envelope, "signatures": []},
        json.loads(STATEMENT.signed(other)),
    ):
        path.write_text(json.dumps(bad))
        with pytest.raises(SignatureError):
            read_statement(path, public)


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b"[" * 100_000, b'{"payload": 1}', b"\xff"])
def test_what_is_no_envelope_is_refused(data: bytes, tmp_path: Path) -> None:
    new_signing_key(tmp_path / "key")
    (tmp_path / "s").write_bytes(data)
    with pytest.raises(FormatError):
        read_statement(tmp_path / "s", read_public_key(tmp_path / "key.pub"))


def test_a_signed_statement_of_another_kind_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key = new_signing_key(tmp_path / "key")
    monkeypatch.setattr(statement, "PREDICATE_TYPE", "urn:other")
    (tmp_path / "s").write_bytes(STATEMENT.signed(key))
    monkeypatch.undo()
    with pytest.raises(FormatError, match="no statement of this proof"):
        read_statement(tmp_path / "s", read_public_key(tmp_path / "key.pub"))


def test_a_file_of_another_kind_is_no_key(tmp_path: Path) -> None:
    new_signing_key(tmp_path / "key")
    with pytest.raises(FormatError):
        read_public_key(tmp_path / "key")
    with pytest.raises(FormatError):
        load_signing_key(tmp_path / "key.pub")
    (tmp_path / "short").write_text("blindpost-statement-key AAAA\n")
    with pytest.raises(FormatError, match="limit 32"):
        load_signing_key(tmp_path / "short")


def test_one_part_that_fails_or_is_void_decides_the_whole() -> None:
    fails, void = replace(RESULT, held=False), replace(RESULT, controls=())
    assert overall(AUDIT, [RESULT]) is Verdict.HOLDS
    assert overall(AUDIT, []) is Verdict.VOID
    assert overall(AUDIT, [RESULT, void]) is Verdict.VOID
    assert overall(AUDIT, [void, fails]) is Verdict.FAILS
    assert overall({"exit_status": 1}, [RESULT]) is Verdict.FAILS
    assert overall({"exit_status": 2}, [RESULT]) is Verdict.VOID
