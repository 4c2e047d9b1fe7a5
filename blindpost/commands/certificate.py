"""`blindpost certificate`: a company's authority for its broker, and certificates for broker, relay and devices.

    device                            authority
    certificate request ── REQUEST ─▶ certificate issue     a device proves that the tag in it is its own
    certificate accept ◀─── CERT ────

No device's key travels, and no gateway link's, which is certified in the same way: at the broker a link is a device.
The relay's and the broker's are made where the authority is: one operator runs all three.
"""

import argparse
import time
from pathlib import Path

from blindpost.files import check_absent, write_new
from blindpost.parser import Options, Parser, Subparsers, add_command, add_family, add_home, home_of
from blindpost.passphrase import add_passphrase_options, read_passphrase

__all__ = ["add_commands"]


def add_commands(subparsers: "Subparsers[Parser]") -> None:
    """Add the family."""
    family = add_family(subparsers, "certificate", "certificates for the broker: who may reach it, and which topics")
    _add_new_ca(family)
    _add_issue(family)
    _add_request(family)
    _add_accept(family)
    _add_revoke(family)


def _add_new_ca(family: "Subparsers[Parser]") -> None:
    parser = add_command(
        family,
        "new-ca",
        summary="make a company's authority for its brokers",
        description=(
            "Makes a folder with an authority's certificate and key; the key is sealed under a passphrase. Its "
            "certificates tell a broker who may reach it and which topics are whose; they open no message, and nothing "
            "of the protocol rests on them."
        ),
        examples=(
            "blindpost certificate new-ca --out ca",
            "blindpost certificate new-ca --out ca --name 'Acme brokers' --days 1825 --passphrase-file ca.pass",
        ),
        run=_new_ca,
    )
    parser.add_argument("--out", type=Path, metavar="CADIR", required=True, help="the authority's folder, to be made")
    parser.add_argument("--name", default="Blindpost brokers", metavar="NAME", help="its name (default: %(default)s)")
    parser.add_argument("--days", type=_days, default=3_650, metavar="N", help="how long it lasts (default: 3650)")
    parser.add_argument(
        "--unprotected",
        action="store_true",
        help="no passphrase: whoever reads the folder can let anybody reach the broker (for tests, or a sealed disk)",
    )
    add_passphrase_options(parser)


def _add_issue(family: "Subparsers[Parser]") -> None:
    parser = add_command(
        family,
        "issue",
        summary="issue a certificate to a broker, a relay or a device",
        description=(
            "Issues one certificate. To a broker: certificate, key and authority go into the new folder OUT. To a "
            "relay: they go into its home, and it shows them from its next start on. To a device, from its request: "
            "the certificate goes into the file OUT, for 'certificate accept'; the request proves which device made "
            "it, and prints as the tag that the device printed. With NATS, let 'broker-config --refresh' follow. A "
            "link of a gateway is certified as a device is, and its socket for devices as a broker is."
        ),
        examples=(
            "blindpost certificate issue --ca ca --broker relay.example localhost --out broker",
            "blindpost certificate issue --ca ca --relay relay",
            "blindpost certificate issue --ca ca --device ana.request --out ana.pem",
            "blindpost certificate issue --ca ca --broker gateway.example --out gateway/listen",
        ),
        run=_issue,
    )
    _add_ca(parser)
    whose = parser.add_mutually_exclusive_group(required=True)
    whose.add_argument("--broker", nargs="+", metavar="HOST", help="names and addresses under which it is reached")
    whose.add_argument("--relay", type=Path, metavar="RELAYDIR", help="the relay's folder")
    whose.add_argument("--device", type=Path, metavar="REQUEST", help="what the device wrote")
    parser.add_argument("--out", type=Path, metavar="OUT", help="a folder for a broker's, a file for a device's")
    parser.add_argument("--days", type=_days, default=397, metavar="N", help="how long it lasts (default: 397)")
    add_passphrase_options(parser)


def _add_request(family: "Subparsers[Parser]") -> None:
    parser = add_command(
        family,
        "request",
        summary="on a device or gateway: make a key for the broker, and write what the authority must sign",
        description=(
            "Makes a key for TLS in the device's folder (mode 0600), and writes to REQUEST what the authority must "
            "sign. REQUEST is public; the device key signs in it that the tag is this device's. A new device on a "
            "broker with certificates is made with 'device new --wait 0', and enrols once it has its certificate. "
            "With --link the folder is a gateway's, and the tag is that of the link."
        ),
        examples=(
            "blindpost certificate request --home ana --out ana.request",
            "blindpost certificate request --home gateway --link 0 --out link0.request",
        ),
        run=_request,
    )
    add_home(parser, "the device's folder, or the gateway's")
    _add_link(parser)
    parser.add_argument("--out", type=Path, metavar="REQUEST", required=True, help="where the request is written")
    add_passphrase_options(parser)


def _add_accept(family: "Subparsers[Parser]") -> None:
    parser = add_command(
        family,
        "accept",
        summary="on the device or gateway: take the certificate that was issued",
        description=(
            "Checks that the certificate is for the key of this device's last request and names its tag, and puts it "
            "to use from the next connection on. With --link, that of a gateway's link, which is used from the "
            "gateway's next start on if it is the link's first."
        ),
        examples=(
            "blindpost certificate accept --home ana ana.pem",
            "blindpost certificate accept --home gateway --link 0 link0.pem",
        ),
        run=_accept,
    )
    add_home(parser, "the device's folder, or the gateway's")
    _add_link(parser)
    parser.add_argument("certificate", type=Path, metavar="CERT", help="what the authority issued")
    add_passphrase_options(parser)


def _add_revoke(family: "Subparsers[Parser]") -> None:
    parser = add_command(
        family,
        "revoke",
        summary="take the certificate of a device, a gateway's link or a relay back",
        description=(
            "Takes a certificate back and signs the authority's new list of revoked ones. Brokers learn of it by "
            "'broker-config --refresh' and their reload. A device that was lost must also leave its account's device "
            "list: that is what closes its mailbox."
        ),
        examples=("blindpost certificate revoke --ca ca 8c2f6f1d4b7a90e35512cd3408a1b6f7",),
        run=_revoke,
    )
    _add_ca(parser)
    parser.add_argument("name", metavar="NAME", help="the tag of a device or link, or relay-ID")
    add_passphrase_options(parser)


def _add_ca(parser: Parser) -> None:
    parser.add_argument("--ca", type=Path, metavar="CADIR", required=True, help="the authority's folder")


def _add_link(parser: Parser) -> None:
    parser.add_argument(
        "--link", type=int, metavar="N", help="the folder is a gateway's: for its link of that number, from 0"
    )


def _days(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 4 and 1 <= int(text) <= 7_300):
        raise argparse.ArgumentTypeError(f"{text[:20]!r} is not a number of days from 1 to 7300")
    return int(text)


def _new_ca(options: Options) -> int:
    from blindpost.authority import AuthorityFolder
    from keys.pki import Authority

    check_absent(options.out)
    now_s = int(time.time())
    authority = Authority.new(options.name, now_s, options.days)
    passphrase = None if options.unprotected else read_passphrase(options, "the new authority", new=True)
    folder = AuthorityFolder.create(options.out, authority, passphrase, now_s)
    print(f"{folder.certificate_path}: public, for brokers, relays and devices")
    print(f"{folder.key_path}: its key" + (", without a passphrase" if options.unprotected else ""))
    return 0


def _issue(options: Options) -> int:
    from blindpost.authority import AuthorityFolder, install
    from blindpost.errors import UsageError
    from blindpost.files import read_bounded
    from keys.pki import PEM_BYTES_MAX, read_device_request
    from relay.home import Home

    if (options.relay is None) == (options.out is None):
        raise UsageError("--out is for a broker's folder or a device's certificate", "a relay's goes into its home")
    if options.out is not None:
        check_absent(options.out)
    request = read_device_request(read_bounded(options.device, "request", PEM_BYTES_MAX)) if options.device else None
    home = Home.open(options.relay) if options.relay else None
    folder = AuthorityFolder(options.ca)
    sealed = folder.is_sealed()
    authority = folder.open(read_passphrase(options, f"the authority in {options.ca}") if sealed else b"")
    now_s = int(time.time())
    if request is not None:
        certificate = authority.issue_device(request, now_s, options.days)
        folder.record(certificate)
        write_new(options.out, certificate + authority.certificate, secret=False)
        print(f"{options.out}: for the device with the tag {request.tag.hex()}")
    elif home is not None:
        credentials = authority.issue_relay(home.card.relay_id, now_s, options.days)
        folder.record(credentials.certificate)
        install(home.path, authority.certificate, credentials)
        print(f"{home.path / 'tls'}: for the relay {home.card.relay_id.hex()}, from its next start on")
    else:
        credentials = authority.issue_broker(options.broker, now_s, options.days)
        options.out.mkdir(mode=0o700)
        write_new(options.out / "ca.pem", authority.certificate, secret=False)
        write_new(options.out / "broker.key", credentials.key, secret=True)
        write_new(options.out / "broker.pem", credentials.certificate, secret=False)
        print(f"{options.out}: for a broker at {', '.join(options.broker)}")
    return 0


def _request(options: Options) -> int:
    from blindpost.authority import request_certificate
    from blindpost.handset import open_device
    from wire.identity import device_tag

    check_absent(options.out)
    if options.link is not None:
        return _request_for_link(options)
    device = open_device(options)
    try:
        write_new(options.out, request_certificate(home_of(options), device.state.keys.signing), secret=False)
        print(f"{options.out}: take it to the authority")
        print(f"tag {device_tag(device.device_key).hex()}")
    finally:
        device.close()
    return 0


def _accept(options: Options) -> int:
    from blindpost.authority import accept_certificate
    from blindpost.files import read_bounded
    from blindpost.handset import open_device
    from keys.pki import PEM_BYTES_MAX

    issued = read_bounded(options.certificate, "certificate", PEM_BYTES_MAX)
    if options.link is not None:
        return _accept_for_link(options, issued)
    device = open_device(options)
    try:
        accept_certificate(home_of(options), issued, device.device_key)
    finally:
        device.close()
    print(f"{home_of(options) / 'tls'}: in use from the next connection on")
    return 0


def _request_for_link(options: Options) -> int:
    from blindpost.authority import request_certificate
    from client.gateway.home import GatewayHome
    from wire.identity import device_tag

    home = GatewayHome.open(home_of(options))
    key, path = home.link_key(options.link), home.link_path(options.link)
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_new(options.out, request_certificate(path, key), secret=False)
    print(f"{options.out}: take it to the authority")
    print(f"tag {device_tag(key.public).hex()}")
    return 0


def _accept_for_link(options: Options, issued: bytes) -> int:
    from blindpost.authority import accept_certificate
    from client.gateway.home import GatewayHome

    home = GatewayHome.open(home_of(options))
    path = home.link_path(options.link)
    accept_certificate(path, issued, home.link_key(options.link).public)
    print(f"{path / 'tls'}: in use from the next connection on, or the gateway's next start if it is the link's first")
    return 0


def _revoke(options: Options) -> int:
    from blindpost.authority import AuthorityFolder

    folder = AuthorityFolder(options.ca)
    sealed = folder.is_sealed()
    authority = folder.open(read_passphrase(options, f"the authority in {options.ca}") if sealed else b"")
    folder.revoke(authority, options.name, int(time.time()))
    print(f"{folder.revocations_path}: signed anew; brokers learn of it by 'blindpost broker-config --refresh'")
    return 0
