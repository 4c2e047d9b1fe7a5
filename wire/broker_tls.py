"""How relays and devices show the broker who they are: the certificates in a home, and the TLS context made of them.

    HOME/tls/ca.pem              the company's authority, which signed the broker's certificate
    HOME/tls/client.pem          the relay's or the device's own certificate
    HOME/tls/client.key    0600  its key; it never leaves the home, and no disclosure has it

A home without the folder trusts the system's authorities and shows no certificate. The broker is trusted with nothing
either way (protocol.md section 6): TLS keeps strangers away from it, and the topics of devices apart (docs/brokers.md).
Who signs certificates, and how, is keys/pki.py.
"""

import ssl
from pathlib import Path

from wire.errors import BlindpostError

__all__ = ["AUTHORITY_NAME", "CERTIFICATE_NAME", "FOLDER_NAME", "KEY_NAME", "TlsInvalid", "client_context"]

FOLDER_NAME = "tls"
AUTHORITY_NAME = "ca.pem"
CERTIFICATE_NAME = "client.pem"
KEY_NAME = "client.key"


class TlsInvalid(BlindpostError):
    """The certificates for the broker cannot be used."""


def client_context(home: Path) -> ssl.SSLContext:
    """The context for connections to the broker: TLS 1.2 at least, the broker's certificate and name checked.

    Args:
        home: of a relay or a device.

    Raises:
        TlsInvalid: a file is missing, is no certificate or key, does not belong to the others, or the key can be read
            by others than its owner.
    """
    folder = home / FOLDER_NAME
    try:
        context = ssl.create_default_context(cafile=folder / AUTHORITY_NAME if folder.is_dir() else None)
        context.minimum_version = max(context.minimum_version, ssl.TLSVersion.TLSv1_2)
        if folder.is_dir():
            key = folder / KEY_NAME
            if key.stat().st_mode & 0o077:
                raise TlsInvalid(f"{key}: can be read by others; its mode must be 0600")
            # A key under a passphrase is refused here; without one given, OpenSSL would ask at a terminal.
            context.load_cert_chain(folder / CERTIFICATE_NAME, key, password="")
    except (OSError, ssl.SSLError) as error:
        raise TlsInvalid(f"{folder}: {error}") from None
    return context
