"""Certificates say who may reach a broker, and nobody gets one for another's topics."""

from __future__ import annotations

import os
from datetime import UTC, datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError
from hypothesis import given
from hypothesis import strategies as st

from keys.errors import CertificateRefused
from keys.pki import (
    Authority,
    check_client_certificate,
    device_user,
    issued_name,
    make_device_request,
    read_device_request,
)
from wire.errors import BlindpostError, FormatError, SignatureError
from wire.identity import device_tag
from wire.signing import SigningKey

NOW = 1_448_884_800
RELAY_ID = bytes(range(16))
ANA = SigningKey(bytes(range(32)))
EVE = SigningKey(bytes(range(1, 33)))
PROOF = x509.ObjectIdentifier("2.25.147692886183579993767588561330908310129")


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority.new("Acme brokers", NOW)


def loaded(pem: bytes) -> x509.Certificate:
    return x509.load_pem_x509_certificate(pem)


def purposes(certificate: x509.Certificate) -> list[x509.ObjectIdentifier]:
    return list(certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)


def test_a_device_gets_a_certificate_of_its_tag_for_clients_only(authority: Authority) -> None:
    pem, key = make_device_request(ANA)
    request = read_device_request(pem)
    assert request.device_key == ANA.public
    certificate = loaded(authority.issue_device(request, NOW, 30))
    assert certificate.subject.rfc4514_string() == f"CN={device_tag(ANA.public).hex()}"
    assert purposes(certificate) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    private = serialization.load_pem_private_key(key, None)
    assert private.public_key() == certificate.public_key()
    assert certificate.not_valid_after_utc == datetime.fromtimestamp(NOW + 30 * 86_400, UTC)
    certificate.verify_directly_issued_by(loaded(authority.certificate))


def test_a_brokers_certificate_verifies_for_its_names_and_no_other(authority: Authority) -> None:
    pem = authority.issue_broker(["broker.example", "127.0.0.1", "::1"], NOW).certificate
    at = PolicyBuilder().time(datetime.fromtimestamp(NOW + 86_400, UTC)).store(Store([loaded(authority.certificate)]))
    at.build_server_verifier(x509.DNSName("broker.example")).verify(loaded(pem), [])
    with pytest.raises(VerificationError):
        at.build_server_verifier(x509.DNSName("other.example")).verify(loaded(pem), [])
    with pytest.raises(VerificationError):
        at.build_server_verifier(x509.DNSName("broker.example")).verify(
            loaded(Authority.new("Acme brokers", NOW).issue_broker(["broker.example"], NOW).certificate), []
        )


def test_no_client_can_play_the_broker(authority: Authority) -> None:
    at = PolicyBuilder().time(datetime.fromtimestamp(NOW + 86_400, UTC)).store(Store([loaded(authority.certificate)]))
    relay = loaded(authority.issue_relay(RELAY_ID, NOW).certificate)
    assert purposes(relay) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    assert relay.subject.rfc4514_string() == f"CN=relay-{RELAY_ID.hex()}"
    with pytest.raises(VerificationError):
        at.build_server_verifier(x509.DNSName(f"relay-{RELAY_ID.hex()}")).verify(relay, [])


def request_by(signer: ec.EllipticCurvePrivateKey, name: str, proof: bytes | None, extra: bool = False) -> bytes:
    names = [x509.NameAttribute(NameOID.COMMON_NAME, name)]
    if extra:
        names.append(x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Acme"))
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name(names))
    if proof is not None:
        builder = builder.add_extension(x509.UnrecognizedExtension(PROOF, proof), critical=False)
    return builder.sign(signer, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def spki(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def test_nobody_gets_a_certificate_for_the_tag_of_another() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    ana, eve = (device_user(device_tag(one.public)) for one in (ANA, EVE))
    own = EVE.public + EVE.sign("broker-certificate", spki(key))
    assert read_device_request(request_by(key, eve, own)).tag.hex() == eve
    # Ana's name with Eve's proof; Ana's key in the proof with Eve's signature; Ana's proof for another key.
    with pytest.raises(CertificateRefused, match="names another device"):
        read_device_request(request_by(key, ana, own))
    with pytest.raises(SignatureError):
        read_device_request(request_by(key, ana, ANA.public + own[32:]))
    other = ec.generate_private_key(ec.SECP256R1())
    with pytest.raises(SignatureError):
        read_device_request(request_by(key, ana, ANA.public + ANA.sign("broker-certificate", spki(other))))
    with pytest.raises(SignatureError):
        read_device_request(request_by(key, ana, ANA.public + ANA.sign("link-device", spki(key))))


def test_a_request_without_its_proof_or_with_another_kind_of_key_is_refused() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    eve = device_user(device_tag(EVE.public))
    proof = EVE.public + EVE.sign("broker-certificate", spki(key))
    with pytest.raises(CertificateRefused, match="no request"):
        read_device_request(request_by(key, eve, None))
    with pytest.raises(CertificateRefused, match="no proof"):
        read_device_request(request_by(key, eve, proof[:-1]))
    with pytest.raises(CertificateRefused, match="names another device"):
        read_device_request(request_by(key, eve, proof, extra=True))
    large = ec.generate_private_key(ec.SECP384R1())
    with pytest.raises(CertificateRefused, match="P-256"):
        read_device_request(request_by(large, eve, EVE.public + EVE.sign("broker-certificate", spki(large))))
    edwards = ed25519.Ed25519PrivateKey.generate()
    builder = x509.CertificateSigningRequestBuilder().subject_name(
        x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, eve)])
    )
    builder = builder.add_extension(x509.UnrecognizedExtension(PROOF, proof), critical=False)
    with pytest.raises(CertificateRefused, match="P-256"):
        read_device_request(builder.sign(edwards, None).public_bytes(serialization.Encoding.PEM))


def test_a_request_whose_own_signature_was_altered_is_refused() -> None:
    pem, _ = make_device_request(ANA)
    der = bytearray(x509.load_pem_x509_csr(pem).public_bytes(serialization.Encoding.DER))
    der[-1] ^= 1
    altered = x509.load_der_x509_csr(bytes(der)).public_bytes(serialization.Encoding.PEM)
    with pytest.raises(CertificateRefused, match=r"own key|no request"):
        read_device_request(altered)


@given(st.binary(max_size=300))
def test_any_bytes_are_a_request_or_a_typed_refusal(data: bytes) -> None:
    for pem in (data, b"-----BEGIN CERTIFICATE REQUEST-----\n" + data + b"\n-----END CERTIFICATE REQUEST-----\n"):
        with pytest.raises(BlindpostError):
            read_device_request(pem)


def test_a_request_is_not_read_without_bound() -> None:
    with pytest.raises(FormatError, match="longer"):
        read_device_request(bytes(65_537))


def test_a_device_takes_only_what_was_issued_to_it(authority: Authority) -> None:
    pem, key = make_device_request(ANA)
    _, other_key = make_device_request(ANA)
    name = device_user(device_tag(ANA.public))
    issued = authority.issue_device(read_device_request(pem), NOW)
    check_client_certificate(issued, authority.certificate, key, name)
    assert issued_name(issued) == name
    with pytest.raises(CertificateRefused, match="another key"):
        check_client_certificate(issued, authority.certificate, other_key, name)
    with pytest.raises(CertificateRefused, match="not of this authority"):
        check_client_certificate(issued, Authority.new("Acme brokers", NOW).certificate, key, name)
    with pytest.raises(CertificateRefused, match="is not of"):
        check_client_certificate(issued, authority.certificate, key, device_user(device_tag(EVE.public)))
    with pytest.raises(CertificateRefused, match="no certificate"):
        check_client_certificate(b"nonsense", authority.certificate, key, name)
    with pytest.raises(CertificateRefused, match="no private key"):
        check_client_certificate(issued, authority.certificate, b"nonsense", name)


def test_an_authority_is_read_back_and_only_with_its_own_key(authority: Authority) -> None:
    again = Authority.load(authority.certificate, authority.key_bytes())
    assert again.certificate == authority.certificate
    for wrong in (Authority.new("Acme brokers", NOW).key_bytes(), b"", b"nonsense"):
        with pytest.raises(CertificateRefused):
            Authority.load(authority.certificate, wrong)
    edwards = ed25519.Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    with pytest.raises(CertificateRefused):
        Authority.load(authority.certificate, edwards)


def test_the_revoked_are_listed_and_signed_and_strangers_are_not(authority: Authority) -> None:
    one = authority.issue_relay(RELAY_ID, NOW).certificate
    listed = x509.load_pem_x509_crl(authority.revocations([one], NOW + 60))
    assert listed.is_signature_valid(ec_public(authority))
    assert [entry.serial_number for entry in listed] == [loaded(one).serial_number]
    # A list that ends would shut everybody out on that day.
    assert listed.next_update_utc == loaded(authority.certificate).not_valid_after_utc
    assert not list(x509.load_pem_x509_crl(authority.revocations([], NOW)))
    stranger = Authority.new("Other", NOW).issue_relay(RELAY_ID, NOW).certificate
    with pytest.raises(CertificateRefused):
        authority.revocations([stranger], NOW)


def ec_public(authority: Authority) -> ec.EllipticCurvePublicKey:
    key = loaded(authority.certificate).public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    return key


@pytest.mark.parametrize("host", ["", "bad host", "a" * 254, "-a", "https://a", "a/b", 'a"b', "a\n"])
def test_a_broker_is_reached_by_names_and_addresses_only(authority: Authority, host: str) -> None:
    with pytest.raises(FormatError, match="host"):
        authority.issue_broker([host], NOW)


def test_what_cannot_be_issued_is_refused(authority: Authority) -> None:
    with pytest.raises(FormatError, match="hosts"):
        authority.issue_broker([], NOW)
    for days in (0, -1, 7_301):
        with pytest.raises(FormatError, match="days"):
            authority.issue_relay(RELAY_ID, NOW, days)
    with pytest.raises(CertificateRefused, match="longer than its authority"):
        authority.issue_relay(RELAY_ID, NOW + 3_400 * 86_400, 397)
    for name in ("", "a" * 65, "CN=evil, O=x", "ä"):
        with pytest.raises(FormatError, match="name"):
            Authority.new(name, NOW)
    with pytest.raises(CertificateRefused):
        issued_name(b"nonsense")


def test_no_private_key_shows_in_a_repr(authority: Authority) -> None:
    credentials = authority.issue_relay(RELAY_ID, NOW)
    secret = serialization.load_pem_private_key(credentials.key, None)
    assert isinstance(secret, ec.EllipticCurvePrivateKey)
    number = secret.private_numbers().private_value
    for text in (repr(credentials), repr(authority), str(credentials)):
        assert "redacted" in text
        assert str(number) not in text
        assert "PRIVATE" not in text
        assert os.fsdecode(credentials.key.splitlines()[1]) not in text
