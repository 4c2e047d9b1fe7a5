"""`blindpost device`: the first device of an account, and further ones, certified by the first.

    second device                     first device
    device request ──── REQUEST ────▶ device approve        public keys, by any way; compare the code that both print
    device accept  ◀─── APPROVAL ────                       the account's signed list

No private key travels: each device makes its own. `device gateway` says by which way a device reaches its relay.
"""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from blindpost.errors import CommandError
from blindpost.exit_status import ExitStatus
from blindpost.files import check_absent, write_new
from blindpost.parser import Options, Parser, Subparsers, add_command, add_family, add_home, home_of, seconds
from blindpost.passphrase import add_passphrase_options, read_passphrase
from wire.errors import FormatError

if TYPE_CHECKING:
    from client.device import Device
    from client.gateway.address import GatewayCard
    from client.transport import Transport
    from wire.card import RelayCard

__all__ = ["add_commands"]


def add_commands(subparsers: "Subparsers[Parser]") -> None:
    """Add the family."""
    family = add_family(subparsers, "device", "make an account's first device, and add further ones")
    parser = add_command(
        family,
        "new",
        summary="make the first device of an account",
        description=(
            "Makes a device's folder and keys, sealed under a passphrase that you choose, and enrols its account at "
            "the relay with the company's token. Without the relay's answer within --wait seconds the device stays as "
            "it is, and the next command on this home goes on with the enrolment."
        ),
        examples=(
            "blindpost device new --home ana --relay relay-card.toml --token ana.token",
            "blindpost device new --home ana --relay relay-card.toml --token ana.token --passphrase-fd 3 3< ana.pass",
            "blindpost device new --home ana --relay relay-card.toml --token ana.token --gateway gateway-card.toml",
        ),
        run=_new,
    )
    add_home(parser, "the device's folder, which is made")
    parser.add_argument("--relay", type=Path, metavar="CARD", required=True, help="the relay's card, relay-card.toml")
    parser.add_argument("--token", type=Path, metavar="TOKEN", required=True, help="the account's token")
    _add_gateway(parser)
    _add_wait(parser)
    add_passphrase_options(parser)
    parser = add_command(
        family,
        "request",
        summary="make a further device, and write what the account's first device must approve",
        description=(
            "Makes a device's folder and keys, sealed under a passphrase of its own, and writes its public keys to "
            "REQUEST. Take that file to the account's first device, and compare the code that both print: whoever "
            "exchanges the file on its way would get all further mail."
        ),
        examples=("blindpost device request --home ana-phone --relay relay-card.toml --out phone.request",),
        run=_request,
    )
    add_home(parser, "the new device's folder, which is made")
    parser.add_argument("--relay", type=Path, metavar="CARD", required=True, help="the relay's card, relay-card.toml")
    parser.add_argument("--out", type=Path, metavar="REQUEST", required=True, help="where the public keys are written")
    _add_gateway(parser)
    add_passphrase_options(parser)
    parser = add_command(
        family,
        "approve",
        summary="on the account's first device: put a further device on the account's list",
        description=(
            "Signs the account's next device list with the new device on it, publishes it at the relay, and writes it "
            "to APPROVAL for the new device. Prints the code of the request, to be compared with what the new device "
            "printed."
        ),
        examples=(
            "blindpost device approve --home ana phone.request --out phone.approval",
            "blindpost device approve --home ana phone.request --out phone.approval "
            "--code '01234 56789 01234 56789 01234'",
        ),
        run=_approve,
    )
    add_home(parser, "the account's first device")
    parser.add_argument("request", type=Path, metavar="REQUEST", help="what the new device wrote")
    parser.add_argument("--out", type=Path, metavar="APPROVAL", required=True, help="where the signed list is written")
    parser.add_argument(
        "--code",
        metavar="DIGITS",
        help="the code that the new device printed: approve only if the request has it (default: a person is asked, "
        "where there is a terminal)",
    )
    _add_wait(parser)
    add_passphrase_options(parser)
    parser = add_command(
        family,
        "accept",
        summary="on the further device: take the approval, and begin",
        description=(
            "Checks that the approved list names this device, and publishes its prekeys at the relay. From then on "
            "mail to the account reaches it too; what was sent before does not."
        ),
        examples=("blindpost device accept --home ana-phone phone.approval",),
        run=_accept,
    )
    add_home(parser, "the new device")
    parser.add_argument("approval", type=Path, metavar="APPROVAL", help="what the first device wrote")
    _add_wait(parser)
    add_passphrase_options(parser)
    parser = add_command(
        family,
        "gateway",
        summary="say by which way this device reaches its relay: a gateway, or the broker",
        description=(
            "From the next connection on, every command of this device goes through that gateway, or to the broker on "
            "the relay's card again. GATEWAY is the gateway's card, or HOST:PORT of one on this machine; without it "
            "the setting is shown. A gateway carries ciphertext; it learns who says when how much, as the relay does."
        ),
        examples=(
            "blindpost device gateway --home ana gateway-card.toml",
            "blindpost device gateway --home ana 127.0.0.1:7480",
            "blindpost device gateway --home ana --none",
        ),
        run=_gateway,
    )
    add_home(parser, "the device's folder")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("gateway", nargs="?", metavar="GATEWAY", help="a gateway's card, or HOST:PORT")
    which.add_argument("--none", action="store_true", help="to the broker, without a gateway")
    add_passphrase_options(parser)


def _add_gateway(parser: Parser) -> None:
    parser.add_argument(
        "--gateway",
        metavar="GATEWAY",
        help="reach the relay through this gateway: its card, or HOST:PORT of one on this machine; 'device gateway' "
        "changes it (default: the broker on CARD)",
    )


def _add_wait(parser: Parser) -> None:
    parser.add_argument(
        "--wait",
        type=seconds,
        default=30.0,
        metavar="S",
        help="give up waiting for the relay after that many seconds (default: 30)",
    )


def _new(options: Options) -> int:
    from blindpost.credentials import read_token
    from blindpost.handset import check_no_home, run_async
    from client.device import Device
    from client.route import keep_gateway
    from wire.card import RelayCard

    home = home_of(options)
    check_no_home(home)
    card, token = RelayCard.read(options.relay), read_token(options.token)
    gateway = _read_gateway(options.gateway, card)
    passphrase = read_passphrase(options, f"the new device in {home}", new=True)

    async def enrol() -> int:
        device = Device.new(home, card, token, passphrase, transport=_transport_of(gateway))
        keep_gateway(home, gateway)
        await _enrol(device, options.wait)
        return 0

    return run_async(enrol())


def _request(options: Options) -> int:
    from blindpost.handset import check_no_home
    from client.device import Device
    from client.route import keep_gateway
    from wire.card import RelayCard

    home = home_of(options)
    check_no_home(home)
    check_absent(options.out)
    card = RelayCard.read(options.relay)
    gateway = _read_gateway(options.gateway, card)
    device = Device.request(home, card, read_passphrase(options, f"the new device in {home}", new=True))
    try:
        keep_gateway(home, gateway)
        write_new(options.out, device.request_text().encode("ascii"), secret=False)
        print(f"{options.out}: take it to the account's first device")
        print(f"code {device.request_fingerprint()}")
    finally:
        device.close()
    return 0


def _approve(options: Options) -> int:
    from blindpost.handset import open_device, run_async, running

    request = _read_text(options.request, "device request")
    check_absent(options.out)
    _compare_code(options)

    async def approve() -> int:
        async with running(open_device(options)) as device:
            approval = await device.approve(request, wait_s=options.wait)
            write_new(options.out, approval.encode("ascii"), secret=False)
            print(f"{options.out}: take it to the new device")
            return 0

    return run_async(approve())


def _accept(options: Options) -> int:
    from blindpost.handset import open_device, run_async

    approval = _read_text(options.approval, "device approval")

    async def accept() -> int:
        device = open_device(options)
        try:
            device.accept(approval)
        except BaseException:
            device.close()
            raise
        await _enrol(device, options.wait)
        return 0

    return run_async(accept())


def _gateway(options: Options) -> int:
    from blindpost.handset import open_device
    from client.route import gateway_of, keep_gateway

    device = open_device(options)
    try:
        home = home_of(options)
        if options.none or options.gateway is not None:
            keep_gateway(home, _read_gateway(options.gateway, device.state.card))
        gateway = gateway_of(home)
        print(f"{home}: {f'gateway {gateway.address.url}' if gateway else f'broker {device.state.card.broker}'}")
    finally:
        device.close()
    return 0


def _read_gateway(text: str | None, card: "RelayCard") -> "GatewayCard | None":
    """A gateway's card from its file, or for the address of one on this machine."""
    from client.gateway.address import GatewayAddress, GatewayCard

    if text is None:
        return None
    path = Path(text)
    if not path.is_file() and (os.sep in text or ":" not in text):
        raise CommandError(f"{text} is not there", "name a gateway's card, or HOST:PORT", ExitStatus.NO_INPUT)
    if not path.is_file():
        return GatewayCard(card.relay_id, GatewayAddress.from_text(text))
    gateway = GatewayCard.read(path)
    if gateway.relay_id != card.relay_id:
        raise CommandError(f"{text} leads to another relay", "ask for the card of your own", ExitStatus.CONFIGURATION)
    return gateway


def _transport_of(gateway: "GatewayCard | None") -> "Transport | None":
    from client.gateway_socket import SocketTransport

    return None if gateway is None else SocketTransport(gateway)


async def _enrol(device: "Device", wait_s: float) -> None:
    from blindpost.handset import running
    from client.errors import Unknown

    async with running(device):
        try:
            await device.enrolled(wait_s=wait_s)
        except Unknown as error:
            raise CommandError(
                f"the relay has not enrolled the device yet: {error.why}",
                "the device is made: do not make it again, the next command on this home goes on",
                ExitStatus.TRY_AGAIN,
            ) from None
        print(f"device {device.device_key.hex()} of {device.account} is enrolled")


def _compare_code(options: Options) -> None:
    """Show the request's code; ask whether it is right, or compare it with the one that was given."""
    from client.device import Device

    code = Device.fingerprint_of_request(_read_text(options.request, "device request"))
    print(f"code {code}", flush=True)
    if options.code is not None:
        if "".join(options.code.split()) != "".join(code.split()):
            hint = "somebody may have exchanged it on its way; nothing was approved"
            raise CommandError("the code is not that of this request", hint, ExitStatus.ALARM)
    elif sys.stdin.isatty():
        answer = input("does the new device show the same code? [y/N] ")
        if answer.strip().lower() not in {"y", "yes"}:
            raise CommandError("not approved", "", ExitStatus.ALARM)


def _read_text(path: Path, name: str) -> str:
    from blindpost.files import read_bounded

    data = read_bounded(path, name, 8_192)
    try:
        return data.decode("ascii")
    except UnicodeDecodeError:
        raise FormatError(name, "is not ASCII") from None
