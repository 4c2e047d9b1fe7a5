"""A company's authority as a folder, and the certificates in the homes of relays and devices (docs/brokers.md).

    CADIR/ca.pem              its certificate, public
    CADIR/ca.key       0600   its key, sealed under a passphrase unless its owner chose otherwise
    CADIR/crl.pem             what it has revoked, signed; made anew at each revocation
    CADIR/issued/NAME.N.pem   the certificates of relays and devices that count, the N-th of that name
    CADIR/revoked/NAME.N.pem  those that were taken back

What certificates hold and who may have one is keys/pki.py; what a home does with them, wire/broker_tls.py.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from blindpost.errors import CommandError
from blindpost.exit_status import ExitStatus
from blindpost.files import check_absent, read_bounded, write_new
from blindpost.key_lines import is_sealed, key_line, read_key_line
from keys.pki import (
    PEM_BYTES_MAX,
    Authority,
    Credentials,
    check_client_certificate,
    device_user,
    issued_name,
    make_device_request,
)
from relay.home import replace_file
from wire.broker_tls import AUTHORITY_NAME, CERTIFICATE_NAME, FOLDER_NAME, KEY_NAME
from wire.errors import FormatError
from wire.identity import device_tag
from wire.limits import ID_BYTES
from wire.signing import SigningKey

__all__ = ["AuthorityFolder", "accept_certificate", "device_tags", "install", "request_certificate"]

_KEY_WORD: Final = "blindpost-authority-key-1"
_ROW_NAME: Final = b"authority-key/1"
_KEY_FIELD: Final = "authority key"
_PENDING_KEY: Final = "tls-request.key"
_PEM_BEGIN: Final = b"-----BEGIN CERTIFICATE-----"


@dataclass(frozen=True, slots=True)
class AuthorityFolder:
    """An authority's folder.

    Args:
        path: where it is.
    """

    path: Path

    @property
    def certificate_path(self) -> Path:
        """Its certificate."""
        return self.path / "ca.pem"

    @property
    def revocations_path(self) -> Path:
        """The list of what it has revoked."""
        return self.path / "crl.pem"

    @property
    def key_path(self) -> Path:
        """Its key."""
        return self.path / "ca.key"

    @classmethod
    def create(cls, path: Path, authority: Authority, passphrase: bytes | None, now_s: int) -> "AuthorityFolder":
        """Write a new authority's folder.

        Args:
            path: a folder that is not there yet.
            authority: what goes into it.
            passphrase: seals its key; None for none.
            now_s: Unix time in seconds.

        Raises:
            CommandError: the folder is there already.
            FormatError: the passphrase is empty or too long.
            OSError: writing failed.
        """
        check_absent(path)
        line = key_line(_KEY_WORD, authority.key_bytes(), _ROW_NAME, passphrase)
        folder = cls(path)
        for made in (path, path / "issued", path / "revoked"):
            made.mkdir(mode=0o700)
        write_new(folder.key_path, line, secret=True)
        write_new(folder.certificate_path, authority.certificate, secret=False)
        write_new(folder.revocations_path, authority.revocations([], now_s), secret=False)
        return folder

    def is_sealed(self) -> bool:
        """Whether its key needs a passphrase.

        Raises:
            CommandError: there is no authority.
            FormatError: its key is no key file.
        """
        if not self.key_path.is_file():
            hint = f"blindpost certificate new-ca --out {self.path}"
            raise CommandError(f"{self.path} is no authority's folder", hint, ExitStatus.CONFIGURATION)
        return is_sealed(self.key_path, _KEY_FIELD, _KEY_WORD)

    def open(self, passphrase: bytes) -> Authority:
        """The authority, ready to sign.

        Raises:
            WrongPassphrase: it does not open the key.
            CertificateRefused, FormatError: the folder is damaged.
        """
        key = read_key_line(self.key_path, _KEY_FIELD, _KEY_WORD, _ROW_NAME, passphrase)
        return Authority.load(_pem(self.certificate_path), key)

    def users(self) -> list[str]:
        """The names that have a certificate that counts, sorted.

        Raises:
            CertificateRefused: one of them is damaged.
        """
        return sorted({issued_name(_pem(path)) for path in (self.path / "issued").glob("*.pem")})

    def record(self, certificate: bytes) -> None:
        """Keep a certificate that was issued. Those of the same name before it go on until their end, or the revocation
        of them all: a renewal must not cut off a device that has not got it yet.

        Raises:
            OSError: writing failed.
        """
        name = issued_name(certificate)
        number = len(self._of("issued", name)) + len(self._of("revoked", name)) + 1
        write_new(self.path / "issued" / f"{name}.{number}.pem", certificate, secret=False)

    def revoke(self, authority: Authority, name: str, now_s: int) -> None:
        """Take back the certificates of that name, and sign the new list.

        Raises:
            CommandError: there is none.
        """
        issued = self._of("issued", name)
        if not issued:
            raise CommandError(f"{self.path} has issued no certificate to {name!r}", "", ExitStatus.NO_INPUT)
        for path in issued:
            path.rename(self.path / "revoked" / path.name)
        revoked = [_pem(path) for path in sorted((self.path / "revoked").glob("*.pem"))]
        replace_file(self.revocations_path, authority.revocations(revoked, now_s), 0o644)

    def _of(self, folder: str, name: str) -> list[Path]:
        return [path for path in (self.path / folder).glob("*.pem") if path.name.partition(".")[0] == name]


def install(home: Path, authority: bytes, credentials: Credentials) -> None:
    """Put certificates into a home, each file whole; what was there is replaced.

    Raises:
        OSError: writing failed.
    """
    folder = home / FOLDER_NAME
    folder.mkdir(mode=0o700, exist_ok=True)
    replace_file(folder / AUTHORITY_NAME, authority, 0o644)
    replace_file(folder / KEY_NAME, credentials.key, 0o600)
    replace_file(folder / CERTIFICATE_NAME, credentials.certificate, 0o644)


def request_certificate(home: Path, device: SigningKey) -> bytes:
    """Make a device's new TLS key, which waits in its home for the certificate, and the request for it (PEM).

    A request that was made before is void then.

    Raises:
        OSError: writing failed.
    """
    request, key = make_device_request(device)
    replace_file(home / _PENDING_KEY, key, 0o600)
    return request


def accept_certificate(home: Path, issued: bytes, device_key: bytes) -> None:
    """Take what the authority issued: the device's certificate and the authority's own, one after the other.

    Args:
        home: the device's.
        issued: both certificates, PEM.
        device_key: the device's public key, 32 bytes, whose tag the certificate must name.

    Raises:
        CommandError: no request was made here.
        CertificateRefused: another device's, for another key, or not of that authority.
        OSError: writing failed; the same again goes on.
    """
    pending = home / _PENDING_KEY
    if not pending.is_file():
        hint = f"blindpost certificate request --home {home} --out REQUEST"
        raise CommandError(f"{home} has made no request that is still open", hint, ExitStatus.CONFIGURATION)
    key = read_bounded(pending, "device's TLS key", PEM_BYTES_MAX)
    certificates = [_PEM_BEGIN + part for part in issued.split(_PEM_BEGIN)[1:]]
    if len(certificates) != 2:
        raise FormatError("certificate file", "must hold two certificates: the device's and its authority's", 2)
    certificate, authority = certificates
    check_client_certificate(certificate, authority, key, device_user(device_tag(device_key)))
    install(home, authority, Credentials(certificate, key))
    pending.unlink()


def device_tags(users: list[str]) -> list[str]:
    """The names among these that are devices' tags."""
    return [user for user in users if len(user) == 2 * ID_BYTES and not user.startswith("relay-")]


def _pem(path: Path) -> bytes:
    return read_bounded(path, path.name, PEM_BYTES_MAX)
