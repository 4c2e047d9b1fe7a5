"""`blindpost broker-config`: what a broker must be told so that each device reaches its own topics and no others."""

from pathlib import Path

from blindpost.parser import Options, Parser, Subparsers, add_command, add_home, home_of

__all__ = ["add_commands"]


def add_commands(subparsers: "Subparsers[Parser]") -> None:
    """Add the command."""
    parser = add_command(
        subparsers,
        "broker-config",
        summary="write a broker's configuration: TLS with certificates, and each device its own topics",
        description=(
            "Writes the configuration of Mosquitto or of a NATS server beside the broker's certificate in DIR, which "
            "'certificate issue --broker … --out DIR' has made. Only holders of the authority's certificates can "
            "connect; the relay reads what devices send and writes to them, and each device, or link of a gateway, "
            "reaches its own two topics and no others. With NATS each of them is a line of users.conf: after a "
            "certificate was issued or revoked, write the list anew with --refresh and let the server reload. The "
            "relay must know the broker: 'relay init --broker' or 'relay run --broker'."
        ),
        examples=(
            "blindpost broker-config --broker mosquitto --home relay --ca ca --out broker",
            "blindpost broker-config --broker nats --home relay --ca ca --out broker --listen 0.0.0.0:8883",
            "blindpost broker-config --broker nats --home relay --ca ca --out broker --refresh",
        ),
        run=_write,
    )
    parser.add_argument("--broker", choices=("mosquitto", "nats"), required=True, help="which broker")
    add_home(parser, "the relay's folder, for its id")
    parser.add_argument("--ca", type=Path, metavar="CADIR", required=True, help="the authority's folder")
    parser.add_argument(
        "--out", type=Path, metavar="DIR", required=True, help="the folder with the broker's certificate"
    )
    parser.add_argument(
        "--listen",
        metavar="HOST:PORT",
        default="0.0.0.0:8883",
        help="where devices reach it by MQTT, and with Mosquitto the relay too (default: %(default)s)",
    )
    parser.add_argument(
        "--relay-listen",
        metavar="HOST:PORT",
        default="127.0.0.1:4222",
        help="where the relay, and gateways that speak NATS's own protocol, reach a NATS server (default: %(default)s)",
    )
    parser.add_argument(
        "--installed",
        type=Path,
        metavar="PATH",
        help="where the folder will be on the broker's machine (default: where DIR is now)",
    )
    parser.add_argument(
        "--refresh",
        action="store_true",
        help="write only the lists of who may do what anew: users.conf with NATS, acl and crl.pem with Mosquitto",
    )


def _write(options: Options) -> int:
    from blindpost import broker_files
    from blindpost.authority import AuthorityFolder, device_tags
    from blindpost.errors import CommandError
    from blindpost.exit_status import ExitStatus
    from blindpost.files import check_absent, read_bounded
    from keys.pki import PEM_BYTES_MAX
    from relay.home import Home, replace_file
    from relay.transport.address import BrokerAddress

    out: Path = options.out
    if not all((out / name).is_file() for name in ("ca.pem", "broker.pem", "broker.key")):
        hint = f"blindpost certificate issue --ca {options.ca} --broker HOST --out {out}"
        raise CommandError(f"{out} holds no broker's certificate", hint, ExitStatus.CONFIGURATION)
    authority = AuthorityFolder(options.ca)
    relay_id = Home.open(home_of(options)).card.relay_id
    listen = BrokerAddress.from_listen(options.listen)
    installed = options.installed or out.absolute()
    if options.broker == "mosquitto":
        program, reload = "mosquitto", "kill -HUP PID"
        configuration = broker_files.mosquitto_conf(listen, installed)
        lists = {
            "acl": broker_files.mosquitto_acl(relay_id).encode(),
            "crl.pem": read_bounded(authority.revocations_path, "revocations", PEM_BYTES_MAX),
        }
    else:
        program, reload = "nats-server", "nats-server --signal reload=PID"
        relay_listen = BrokerAddress.from_listen(options.relay_listen, "relay-listen")
        configuration = broker_files.nats_conf(listen, relay_listen, installed)
        lists = {"users.conf": broker_files.nats_users(relay_id, device_tags(authority.users())).encode()}
    name = f"{options.broker}.conf"
    if options.refresh:
        files = lists
    else:
        files = {name: configuration.encode(), **lists}
        for file_name in files:
            check_absent(out / file_name)
    for file_name, data in files.items():
        replace_file(out / file_name, data, 0o644)
    print(f"{out}: {', '.join(files)}")
    print(f"let it reload: {reload}" if options.refresh else f"start: {program} -c {installed / name}")
    return 0
