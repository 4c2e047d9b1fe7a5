"""The relay's certificate for the broker: a folder of its home (docs/brokers.md).

    DIR/tls/ca.pem              the company's authority, which signed the broker's certificate
    DIR/tls/relay.pem           the relay's certificate
    DIR/tls/relay.key     0600  its key; never handed over

A relay without the folder trusts the system's authorities and shows no certificate. The broker is trusted with
nothing either way (protocol.md section 6): TLS keeps others away from it, and its topics apart.
"""

import ssl
from pathlib import Path

from wire.errors import BlindpostError

FOLDER_NAME = "tls"
AUTHORITY_NAME = "ca.pem"
CERTIFICATE_NAME = "relay.pem"
KEY_NAME = "relay.key"


class TlsInvalid(BlindpostError):
    """The certificates for the broker cannot be used."""


def client_context(folder: Path) -> ssl.SSLContext:
    """The context for a connection to the broker: TLS 1.2 at least, its certificate checked, its name too.

    Raises:
        TlsInvalid: a file is missing, is no certificate or key, does not belong to the others, or the key can be read
            by others.
    """
    if not folder.is_dir():
        return ssl.create_default_context()
    key = folder / KEY_NAME
    try:
        context = ssl.create_default_context(cafile=folder / AUTHORITY_NAME)
        if key.stat().st_mode & 0o077:
            raise TlsInvalid(f"{key}: can be read by others; its mode must be 0600")
        # A key that asks for a passphrase is refused, and does not wait at a prompt that nobody sees.
        context.load_cert_chain(folder / CERTIFICATE_NAME, key, password="")
    except (OSError, ssl.SSLError) as error:
        raise TlsInvalid(f"{folder}: {error}") from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context
