from __future__ import annotations

import base64
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import keys.vault
from blindpost.credentials import TenantKey, read_token, token_line
from keys.errors import VaultDamaged, WrongPassphrase
from keys.identity import TenantAdminKey
from wire.codec import encode
from wire.errors import FormatError
from wire.identity import verify_token

NOW = 1_448_884_800


@pytest.fixture(autouse=True)
def _cheap_vaults(monkeypatch: pytest.MonkeyPatch) -> None:
    # The cost of a try is the vault's own subject; here it would be seconds for nothing.
    monkeypatch.setattr("keys.vault.Vault.create.__func__.__defaults__", (keys.vault.CHEAP_FOR_TESTS, os.urandom))


@pytest.fixture
def admin() -> TenantAdminKey:
    return TenantAdminKey.generate()


def test_a_sealed_key_file_opens_with_its_passphrase_only(tmp_path: Path, admin: TenantAdminKey) -> None:
    path = tmp_path / "acme.key"
    path.write_bytes(TenantKey("acme.example", admin).sealed(b"correct horse"))
    assert TenantKey.is_sealed(path)
    read = TenantKey.read(path, b"correct horse")
    assert (read.domain, read.admin.to_bytes()) == ("acme.example", admin.to_bytes())
    with pytest.raises(WrongPassphrase):
        TenantKey.read(path, b"battery staple")


def test_a_sealed_key_file_does_not_hold_the_key(admin: TenantAdminKey) -> None:
    line = TenantKey("acme.example", admin).sealed(b"correct horse")
    held = b"".join(base64.b64decode(word) for word in line.split()[2:])
    assert admin.signing.seed not in held
    assert b"acme" not in held


def test_an_unprotected_key_file_needs_no_passphrase(tmp_path: Path, admin: TenantAdminKey) -> None:
    path = tmp_path / "acme.key"
    path.write_bytes(TenantKey("acme.example", admin).unprotected())
    assert not TenantKey.is_sealed(path)
    assert TenantKey.read(path).admin.to_bytes() == admin.to_bytes()


def test_an_altered_row_does_not_open(tmp_path: Path, admin: TenantAdminKey) -> None:
    first, kind, header, row = TenantKey("acme.example", admin).sealed(b"correct horse").split()
    altered = bytearray(base64.b64decode(row))
    altered[-1] ^= 1
    path = tmp_path / "acme.key"
    path.write_bytes(b" ".join([first, kind, header, base64.b64encode(altered)]))
    with pytest.raises(VaultDamaged):
        TenantKey.read(path, b"correct horse")


@given(st.binary(max_size=200).map(lambda tail: b"blindpost-tenant-key-1 " + tail) | st.binary(max_size=200))
def test_any_bytes_are_a_key_file_or_a_format_error(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.mktemp("key") / "key"
    path.write_bytes(data)
    with pytest.raises(FormatError, match=r"^tenant key: "):
        TenantKey.read(path, b"x")


@pytest.mark.parametrize(
    "line",
    [
        b"blindpost-tenant-key-1 unprotected not-base64!",
        b"blindpost-tenant-key-1 unprotected AAA",
        b"blindpost-tenant-key-1 unprotected AAAA extra",
        b"blindpost-tenant-key-1 unprotected AB==",
        b"blindpost-tenant-key-1 sealed AAAA",
        b"blindpost-tenant-key-1 open AAAA",
        b"blindpost-tenant-key-1",
        b"blindpost-tenant-key-2 unprotected AAAA",
        b"blindpost-tenant-key-1 unprotected " + b"A" * 5_000,
    ],
)
def test_a_line_that_is_not_quite_a_key_file_is_refused(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "key"
    path.write_bytes(line)
    with pytest.raises(FormatError):
        TenantKey.read(path)


def test_a_token_file_is_one_line_and_reads_back(tmp_path: Path, admin: TenantAdminKey) -> None:
    token = admin.activate("ana@acme.example", NOW + 60)
    line = token_line(token)
    assert line == b"blindpost-token-1 " + base64.b64encode(encode(token)) + b"\n"
    path = tmp_path / "ana.token"
    path.write_bytes(line)
    assert read_token(path) == token
    assert verify_token(read_token(path), admin.public, NOW).account == "ana@acme.example"


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"\xff",
        b"blindpost-token-1",
        b"blindpost-token-1 AAAA AAAA",
        b"blindpost-token-1 AAAA",
        b"blindpost-token-2 AAAA",
    ],
)
def test_what_is_no_token_file_is_refused(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "token"
    path.write_bytes(line)
    with pytest.raises(FormatError, match=r"^token: "):
        read_token(path)


def test_repr_shows_no_key(admin: TenantAdminKey) -> None:
    assert repr(TenantKey("acme.example", admin)) == "TenantKey(domain='acme.example', admin=<redacted>)"
