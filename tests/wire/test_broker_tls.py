"""The TLS context of a home: whole, private, and checked, or a typed refusal."""

from __future__ import annotations

import ssl
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from keys.pki import Authority, Credentials
from wire.broker_tls import TlsInvalid, client_context

NOW = 1_448_884_800


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority.new("Acme brokers", NOW)


def put(home: Path, authority: Authority, credentials: Credentials) -> Path:
    folder = home / "tls"
    folder.mkdir()
    (folder / "ca.pem").write_bytes(authority.certificate)
    (folder / "client.pem").write_bytes(credentials.certificate)
    (folder / "client.key").write_bytes(credentials.key)
    (folder / "client.key").chmod(0o600)
    return folder


def test_a_home_with_certificates_shows_them_and_trusts_its_authority_alone(
    tmp_path: Path, authority: Authority
) -> None:
    put(tmp_path, authority, authority.issue_relay(bytes(16), NOW))
    context = client_context(tmp_path)
    assert context.verify_mode == ssl.CERT_REQUIRED
    assert context.check_hostname
    assert context.minimum_version >= ssl.TLSVersion.TLSv1_2
    assert [found["subject"] for found in context.get_ca_certs()] == [((("commonName", "Acme brokers"),),)]


def test_a_home_without_the_folder_trusts_the_systems_authorities(tmp_path: Path) -> None:
    context = client_context(tmp_path)
    assert context.verify_mode == ssl.CERT_REQUIRED
    assert context.check_hostname


@pytest.mark.parametrize("name", ["ca.pem", "client.pem", "client.key"])
def test_a_file_that_is_missing_or_damaged_is_a_typed_refusal(tmp_path: Path, authority: Authority, name: str) -> None:
    folder = put(tmp_path, authority, authority.issue_relay(bytes(16), NOW))
    for content in (b"", b"nonsense"):
        (folder / name).write_bytes(content)
        with pytest.raises(TlsInvalid):
            client_context(tmp_path)
    (folder / name).unlink()
    with pytest.raises(TlsInvalid):
        client_context(tmp_path)


def test_a_key_that_others_can_read_or_of_another_certificate_is_refused(tmp_path: Path, authority: Authority) -> None:
    folder = put(tmp_path, authority, authority.issue_relay(bytes(16), NOW))
    (folder / "client.key").chmod(0o640)
    with pytest.raises(TlsInvalid, match="0600"):
        client_context(tmp_path)
    (folder / "client.key").chmod(0o600)
    (folder / "client.key").write_bytes(authority.issue_relay(bytes(16), NOW).key)
    with pytest.raises(TlsInvalid):
        client_context(tmp_path)


def test_a_key_under_a_passphrase_is_refused_and_nobody_is_asked_for_it(tmp_path: Path, authority: Authority) -> None:
    folder = put(tmp_path, authority, authority.issue_relay(bytes(16), NOW))
    key = load_pem_private_key((folder / "client.key").read_bytes(), None)
    sealed = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret"))
    (folder / "client.key").write_bytes(sealed)
    code = (
        "import pathlib, sys, wire.broker_tls as tls\n"
        "try: tls.client_context(pathlib.Path(sys.argv[1]))\n"
        "except tls.TlsInvalid: print('refused')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=30,
    )
    assert (done.stdout, done.stderr) == ("refused\n", "")
