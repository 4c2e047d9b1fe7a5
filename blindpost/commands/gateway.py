"""`blindpost gateway`: a company's server that carries many devices over few links, in a process of its own.

`run` replaces this process by `python -m client.gateway`, which has never loaded a ratchet, a vault or a device.
"""

import os
import sys
from pathlib import Path
from typing import NoReturn

from blindpost.errors import CommandError
from blindpost.exit_status import ExitStatus
from blindpost.parser import Options, Parser, Subparsers, add_command, add_family, add_home, home_of

__all__ = ["add_commands"]


def add_commands(subparsers: "Subparsers[Parser]") -> None:
    """Add the family."""
    family = add_family(subparsers, "gateway", "make and run a company's gateway: many devices over few links")
    _add_init(family)
    _add_run(family)
    parser = add_command(
        family,
        "show",
        summary="tell how devices join, and the links with their tags",
        description=(
            "Prints where devices reach the gateway, and each link with its tag, which names its topics at the broker. "
            "Where the broker asks for certificates, each link needs its own: 'certificate request --link'."
        ),
        examples=("blindpost gateway show --home gateway",),
        run=_show,
    )
    add_home(parser, "the gateway's folder")


def _add_init(family: "Subparsers[Parser]") -> None:
    parser = add_command(
        family,
        "init",
        summary="make a gateway's folder: the links' keys, settings and its public card",
        description=(
            "Makes the folder of a gateway to the relay of CARD, with the seed of its links' own keys (mode 0600) and "
            "DIR/gateway-card.toml, which is public: 'device new --gateway' takes it. A gateway holds no key of a "
            "device and sees ciphertext only. Devices of other machines come over TLS: name the address at which they "
            "reach it, and give it a certificate before it runs. With NATS a gateway may speak NATS's own protocol "
            "(--broker nats:// or tls://) where devices speak MQTT."
        ),
        examples=(
            "blindpost gateway init --home gateway --relay relay-card.toml",
            "blindpost gateway init --home gateway --relay relay-card.toml --broker nats://127.0.0.1:4222 --links 8",
            "blindpost gateway init --home gateway --relay relay-card.toml --listen 0.0.0.0:7480 "
            "--address gateway.example:7480",
        ),
        run=_init,
    )
    add_home(parser, "the gateway's folder, which is made")
    parser.add_argument("--relay", type=Path, metavar="CARD", required=True, help="the relay's card, relay-card.toml")
    parser.add_argument(
        "--listen",
        metavar="HOST:PORT",
        default="127.0.0.1:7480",
        help="where it takes devices; in the clear on this machine's own addresses only (default: 127.0.0.1:7480)",
    )
    parser.add_argument(
        "--address",
        metavar="HOST:PORT",
        help="how devices of other machines reach it, over TLS (default: as --listen, which is then of this machine)",
    )
    parser.add_argument(
        "--broker",
        metavar="URL",
        help="the relay's broker: mqtt://HOST:PORT, nats://HOST:PORT, or over TLS mqtts:// and tls:// (NATS) "
        "(default: as on CARD)",
    )
    parser.add_argument(
        "--links", type=int, default=4, metavar="N", help="links that it may have, each for 255 devices (default: 4)"
    )


def _add_run(family: "Subparsers[Parser]") -> None:
    parser = add_command(
        family,
        "run",
        summary="carry devices until SIGTERM",
        description=(
            "Carries the devices that join, until it gets SIGTERM or SIGINT. Prints 'ready listen=HOST:PORT links=N "
            "home=DIR' when it takes devices. What its devices have asked and the relay has not answered they ask "
            "again of its successor. It logs nothing of who says what; at SIGUSR1 it prints how many there are."
        ),
        examples=(
            "blindpost gateway run --home gateway",
            "blindpost gateway run --home gateway --broker mqtt://broker.example:1883",
        ),
        run=_run,
    )
    add_home(parser, "the gateway's folder")
    parser.add_argument(
        "--broker",
        metavar="URL",
        help="from now on use this broker; it is written to the gateway's settings (default: as the settings say)",
    )


def _init(options: Options) -> int:
    from client.gateway.address import GatewayAddress
    from client.gateway.home import CARD_NAME, GatewayConfig, init
    from client.gateway.upstream import check_broker
    from wire.card import RelayCard

    card = RelayCard.read(options.relay)
    listen = GatewayAddress.from_text(options.listen, "listen")
    if options.address is not None:
        address = GatewayAddress.from_text(options.address, "address")
        # On another machine there is no other way; on this one, whoever wants TLS says so.
        address = GatewayAddress(address.host, address.port, address.tls or not address.is_of_this_machine)
    elif listen.is_everywhere:
        raise CommandError(f"devices cannot reach {options.listen}", "name one they can: --address", ExitStatus.USAGE)
    else:
        address = GatewayAddress(listen.host, listen.port, not listen.is_of_this_machine)
    broker = check_broker(card.broker if options.broker is None else options.broker)
    path = home_of(options)
    home = init(path, card, GatewayConfig(listen, address, broker, options.links), os.urandom)
    print(f"{path}: gateway to the relay {card.relay_id.hex()} at {broker}")
    print(f"{path / CARD_NAME}: public, for 'device new --gateway'; devices reach it at {address.url}")
    if home.config.address.tls:
        print(f"it needs a certificate: {_certificate_for(path, address.host)}")
    return 0


def _certificate_for(path: Path, host: str) -> str:
    from client.gateway.home import LISTEN_NAME

    return f"blindpost certificate issue --ca CADIR --broker {host} --out {path / LISTEN_NAME}"


def _show(options: Options) -> int:
    from client.gateway.home import CARD_NAME, LISTEN_NAME, GatewayHome
    from client.gateway.upstream import TLS_SCHEMES
    from wire.identity import device_tag

    home = GatewayHome.open(home_of(options))
    config = home.config
    print(f"relay {home.relay_card.relay_id.hex()} at {config.broker}")
    print(f"devices: {config.address.url}, by {home.path / CARD_NAME}")
    if config.address.tls and not (home.path / LISTEN_NAME / "broker.pem").is_file():
        print(f"it needs a certificate: {_certificate_for(home.path, config.address.host)}")
    asks = config.broker.partition("://")[0] in TLS_SCHEMES
    for index in range(config.links):
        tag = device_tag(home.link_key(index).public).hex()
        held = "" if not asks else ", with a certificate" if home.has_certificate(index) else ", without a certificate"
        print(f"link {index} tag {tag}{held}")
    return 0


def _run(options: Options) -> NoReturn:
    home = home_of(options)
    if not home.is_dir():
        hint = f"blindpost gateway init --home {home} --relay CARD"
        raise CommandError(f"{home} is no folder", hint, ExitStatus.CONFIGURATION)
    # -P: the current folder is not searched for modules. The gateway is then found where this program was.
    root = str(Path(__file__).resolve().parents[2])
    paths = [root, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    sys.stdout.flush()
    arguments = [sys.executable, "-P", "-m", "client.gateway", "run", "--home", str(home)]
    if options.broker is not None:
        arguments += ["--broker", options.broker]
    os.execve(sys.executable, arguments, environment)  # noqa: S606 (no shell is wanted, and no name is looked up)
