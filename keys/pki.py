"""Certificates for the broker: a company's authority, and what it signs for brokers, relays, devices (docs/brokers.md).

    authority   CN=NAME                  signs the others, and nothing below them
    broker      CN=HOST, and SAN         for servers
    relay       CN=relay-RELAY_ID        for clients: reads all `up`, writes all `down`
    device      CN=DEVICE_TAG            for clients: writes its own `up`, reads its own `down`

TLS keeps strangers off the broker, and the name in a certificate tells it which topics are whose. Nothing of the
protocol rests on it: links are sealed end to end, and the broker is trusted with nothing.

Rules:
- keys are ECDSA P-256, which every broker and every TLS library accepts; their private halves show in no repr, and
  leave only as bytes for a file of mode 0600;
- a subject holds the common name and nothing else, since NATS takes the whole subject for the user's name;
- a device's key never leaves it: it makes a request (PKCS #10), and proves in it by its device key that the tag is
  its own, so nobody gets a certificate for another's topics;
- time is handed in; entropy for keys and serial numbers is OpenSSL's.
"""

import ipaddress
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_private_key,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from keys.errors import CertificateRefused
from wire.errors import FormatError
from wire.identity import device_tag
from wire.limits import KEY_BYTES, SIGNATURE_BYTES
from wire.signing import SigningKey, verify

__all__ = [
    "AUTHORITY_DAYS",
    "LEAF_DAYS",
    "PEM_BYTES_MAX",
    "Authority",
    "Credentials",
    "DeviceRequest",
    "check_client_certificate",
    "device_user",
    "issued_name",
    "make_device_request",
    "read_device_request",
    "relay_user",
]

AUTHORITY_DAYS: Final = 3_650
LEAF_DAYS: Final = 397
DAYS_MAX: Final = 7_300
PEM_BYTES_MAX: Final = 65_536
_SKEW: Final = timedelta(hours=1)
_LABEL: Final = "broker-certificate"
_NAME: Final = re.compile(r"[A-Za-z0-9 ._-]{1,64}")
_HOST: Final = re.compile(r"(?=.{1,253}\Z)[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?(?:\.[A-Za-z0-9-]{1,63})*")
# Made from a UUID (ITU-T X.667): the proof of a device's tag, device key 32 ‖ signature 64 over the request's key.
_PROOF: Final = x509.ObjectIdentifier("2.25.147692886183579993767588561330908310129")


@dataclass(frozen=True, slots=True, repr=False)
class Credentials:
    """A certificate and its private key, both PEM; the key is secret."""

    certificate: bytes
    key: bytes

    def __repr__(self) -> str:
        return f"Credentials({_common_name(x509.load_pem_x509_certificate(self.certificate))}, key=<redacted>)"


@dataclass(frozen=True, slots=True)
class DeviceRequest:
    """A device's request, verified.

    Args:
        tag: 16 bytes; the device proved that they are its own.
        device_key: 32 bytes, as on its account's device list.
        public_key: what the certificate is to hold.
    """

    tag: bytes
    device_key: bytes
    public_key: ec.EllipticCurvePublicKey


def relay_user(relay_id: bytes) -> str:
    """The common name of a relay's certificate."""
    return f"relay-{relay_id.hex()}"


def device_user(tag: bytes) -> str:
    """The common name of a device's certificate."""
    return tag.hex()


class Authority:
    """A company's authority for its brokers.

    Args:
        certificate: its own certificate.
        key: its key; secret.
    """

    __slots__ = ("_certificate", "_key")

    def __init__(self, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
        self._certificate = certificate
        self._key = key

    def __repr__(self) -> str:
        return f"Authority({_common_name(self._certificate)!r}, key=<redacted>)"

    @classmethod
    def new(cls, name: str, now_s: int, days: int = AUTHORITY_DAYS) -> "Authority":
        """A new authority.

        Args:
            name: what people call it, 1 to 64 of `A-Z a-z 0-9 . _ -` and spaces.
            now_s: Unix time in seconds.
            days: how long it lasts, and with it all that it signs.

        Raises:
            FormatError: name or days are not allowed.
        """
        if not _NAME.fullmatch(name):
            raise FormatError("authority name", "must be 1 to 64 letters, digits, spaces and . _ -", 64)
        key = ec.generate_private_key(ec.SECP256R1())
        builder = _builder(name, name, key.public_key(), now_s, _checked_days(days))
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        builder = builder.add_extension(_usage(signs=True), critical=True)
        return cls(builder.sign(key, hashes.SHA256()), key)

    @classmethod
    def load(cls, certificate: bytes, key: bytes) -> "Authority":
        """An authority from its certificate (PEM) and key (DER, as `key_bytes` gives it).

        Raises:
            CertificateRefused: they are not that, or do not belong together.
        """
        loaded = _load_certificate(certificate)
        try:
            private = load_der_private_key(key, None)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            raise CertificateRefused("the authority's key is no private key") from None
        if not isinstance(private, ec.EllipticCurvePrivateKey) or private.public_key() != loaded.public_key():
            raise CertificateRefused("the authority's key is not that of its certificate")
        return cls(loaded, private)

    @property
    def certificate(self) -> bytes:
        """Its certificate, PEM; public."""
        return self._certificate.public_bytes(Encoding.PEM)

    def key_bytes(self) -> bytes:
        """Its private key, PKCS #8 in DER, for sealed storage only."""
        return self._key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())

    def issue_broker(self, hosts: Sequence[str], now_s: int, days: int = LEAF_DAYS) -> Credentials:
        """A certificate and key for a broker.

        Args:
            hosts: the names and IP addresses under which clients reach it; the first is the common name.
            now_s: Unix time in seconds.
            days: how long it lasts.

        Raises:
            FormatError: no host, or one that is neither a name nor an address.
        """
        if not hosts:
            raise FormatError("broker hosts", "must be one at least", 1)
        names = x509.SubjectAlternativeName([_general_name(host) for host in hosts])
        key = ec.generate_private_key(ec.SECP256R1())
        # A common name holds 64 characters at most; the names that count are the alternative ones.
        builder = self._leaf(hosts[0][:64], key.public_key(), now_s, days, ExtendedKeyUsageOID.SERVER_AUTH)
        return _credentials(builder.add_extension(names, critical=False).sign(self._key, hashes.SHA256()), key)

    def issue_relay(self, relay_id: bytes, now_s: int, days: int = LEAF_DAYS) -> Credentials:
        """A certificate and key for a relay."""
        key = ec.generate_private_key(ec.SECP256R1())
        builder = self._leaf(relay_user(relay_id), key.public_key(), now_s, days, ExtendedKeyUsageOID.CLIENT_AUTH)
        return _credentials(builder.sign(self._key, hashes.SHA256()), key)

    def issue_device(self, request: DeviceRequest, now_s: int, days: int = LEAF_DAYS) -> bytes:
        """A certificate (PEM) for a device that made a request."""
        builder = self._leaf(device_user(request.tag), request.public_key, now_s, days, ExtendedKeyUsageOID.CLIENT_AUTH)
        return builder.sign(self._key, hashes.SHA256()).public_bytes(Encoding.PEM)

    def revocations(self, revoked: Iterable[bytes], now_s: int) -> bytes:
        """The list of revoked certificates (PEM), good until the authority itself ends.

        Args:
            revoked: certificates of this authority, PEM.
            now_s: Unix time in seconds.

        Raises:
            CertificateRefused: one is not of this authority.
        """
        now = datetime.fromtimestamp(now_s, UTC)
        builder = x509.CertificateRevocationListBuilder().issuer_name(self._certificate.subject)
        builder = builder.last_update(now - _SKEW).next_update(self._certificate.not_valid_after_utc)
        for pem in revoked:
            serial = self._own(pem).serial_number
            entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(now).build()
            builder = builder.add_revoked_certificate(entry)
        builder = builder.add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False
        )
        builder = builder.add_extension(x509.CRLNumber(now_s), critical=False)
        return builder.sign(self._key, hashes.SHA256()).public_bytes(Encoding.PEM)

    def _own(self, pem: bytes) -> x509.Certificate:
        certificate = _load_certificate(pem)
        _check_issued(certificate, self._certificate)
        return certificate

    def _leaf(
        self, name: str, public_key: ec.EllipticCurvePublicKey, now_s: int, days: int, use: x509.ObjectIdentifier
    ) -> x509.CertificateBuilder:
        builder = _builder(name, _common_name(self._certificate), public_key, now_s, _checked_days(days))
        if datetime.fromtimestamp(now_s, UTC) + timedelta(days=days) > self._certificate.not_valid_after_utc:
            raise CertificateRefused("would last longer than its authority")
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        builder = builder.add_extension(_usage(signs=False), critical=True)
        builder = builder.add_extension(x509.ExtendedKeyUsage([use]), critical=False)
        return builder.add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False
        )


def make_device_request(device: SigningKey) -> tuple[bytes, bytes]:
    """A device's request (PEM) and the new private key (PEM; secret) that it is for.

    Args:
        device: the device key, which proves that the tag is the device's.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    proof = device.public + device.sign(_LABEL, _public_bytes(key.public_key()))
    name = device_user(device_tag(device.public))
    builder = x509.CertificateSigningRequestBuilder().subject_name(_subject(name))
    builder = builder.add_extension(x509.UnrecognizedExtension(_PROOF, proof), critical=False)
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM), _key_pem(key)


def read_device_request(pem: bytes) -> DeviceRequest:
    """Read a request, and verify that whoever made it holds its key and the device key that gives its tag.

    Raises:
        CertificateRefused: no request, another kind of key, or not signed by both.
        SignatureError: the proof of the tag does not verify.
        FormatError: it is too long.
    """
    if len(pem) > PEM_BYTES_MAX:
        raise FormatError("certificate request", "is longer than it may be, in bytes", PEM_BYTES_MAX)
    try:
        request = x509.load_pem_x509_csr(pem)
        public_key = request.public_key()
        signed = request.is_signature_valid
        proof = request.extensions.get_extension_for_oid(_PROOF).value
        name = _only_common_name(request.subject)
    except (ValueError, TypeError, UnsupportedAlgorithm, InvalidSignature, x509.ExtensionNotFound):
        raise CertificateRefused("is no request of a Blindpost device") from None
    if not isinstance(public_key, ec.EllipticCurvePublicKey) or not isinstance(public_key.curve, ec.SECP256R1):
        raise CertificateRefused("is for a key that is not ECDSA P-256")
    if not signed or not isinstance(proof, x509.UnrecognizedExtension):
        raise CertificateRefused("is not signed by its own key")
    if len(proof.value) != KEY_BYTES + SIGNATURE_BYTES:
        raise CertificateRefused("has no proof of the device's tag")
    device_key = proof.value[:KEY_BYTES]
    verify(device_key, _LABEL, _public_bytes(public_key), proof.value[KEY_BYTES:])
    tag = device_tag(device_key)
    if name != device_user(tag):
        raise CertificateRefused("names another device than the one that made it")
    return DeviceRequest(tag, device_key, public_key)


def check_client_certificate(certificate: bytes, authority: bytes, key: bytes, name: str) -> None:
    """Check that a certificate is what was asked for: of that authority, for that key, and of that name.

    Args:
        certificate: PEM, from whoever issued it.
        authority: PEM.
        key: the private key, PEM.
        name: the common name that it must have.

    Raises:
        CertificateRefused: it is not.
    """
    leaf, issuer = _load_certificate(certificate), _load_certificate(authority)
    _check_issued(leaf, issuer)
    try:
        private = load_pem_private_key(key, None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise CertificateRefused("the key beside it is no private key") from None
    if leaf.public_key() != private.public_key():
        raise CertificateRefused("is for another key than the one that was made here")
    if _only_common_name(leaf.subject) != name:
        raise CertificateRefused(f"is not of {name}")


def issued_name(pem: bytes) -> str:
    """The common name of a certificate.

    Raises:
        CertificateRefused: it is no certificate, or has more names than one.
    """
    name = _only_common_name(_load_certificate(pem).subject)
    if name is None:
        raise CertificateRefused("has not just one name")
    return name


def _check_issued(certificate: x509.Certificate, issuer: x509.Certificate) -> None:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature):
        raise CertificateRefused("is not of this authority") from None


def _load_certificate(pem: bytes) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(pem)
    except ValueError:
        raise CertificateRefused("is no certificate in PEM") from None


def _builder(
    subject: str, issuer: str, public_key: ec.EllipticCurvePublicKey, now_s: int, days: int
) -> x509.CertificateBuilder:
    now = datetime.fromtimestamp(now_s, UTC)
    builder = x509.CertificateBuilder().subject_name(_subject(subject)).issuer_name(_subject(issuer))
    builder = builder.public_key(public_key).serial_number(x509.random_serial_number())
    builder = builder.not_valid_before(now - _SKEW).not_valid_after(now + timedelta(days=days))
    return builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)


def _checked_days(days: int) -> int:
    if not 1 <= days <= DAYS_MAX:
        raise FormatError("certificate days", f"must be 1 to {DAYS_MAX}", DAYS_MAX)
    return days


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs,
        key_cert_sign=signs,
        crl_sign=signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        pass
    if not _HOST.fullmatch(host):
        raise FormatError("broker host", f"{host[:80]!r} is neither a host name nor an IP address")
    return x509.DNSName(host)


def _subject(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _common_name(certificate: x509.Certificate) -> str:
    return _only_common_name(certificate.subject) or "?"


def _only_common_name(name: x509.Name) -> str | None:
    attributes = list(name)
    if len(attributes) != 1 or attributes[0].oid != NameOID.COMMON_NAME:
        return None
    return str(attributes[0].value)


def _public_bytes(key: ec.EllipticCurvePublicKey) -> bytes:
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _credentials(certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> Credentials:
    return Credentials(certificate.public_bytes(Encoding.PEM), _key_pem(key))
