"""`python -m relay`: the relay's own command line, as thin as can be.

    python -m relay init --home DIR [--listen HOST:PORT | --broker URL [--device-broker URL]]
    python -m relay run --home DIR [--broker URL]            prints `ready broker=URL home=DIR`, serves until SIGTERM
    python -m relay tenant-add DOMAIN ADMIN_KEY --home DIR   ADMIN_KEY: 64 hexadecimal digits, public
    python -m relay order --home DIR --out DIR [--memory]    take a disclosure, of a relay that runs or does not
    python -m relay disclose --home DIR --out DIR            hand over the store of a relay that does not run
    python -m relay status --home DIR
    python -m relay stop --home DIR

The process that serves loads no module of keys, client, sim, audit or blindpost; a disclosure lists what it loaded.
Exit statuses: 0, 64 wrong usage, 69 the relay cannot do it, 70 a fault of this program.
"""

import argparse
import asyncio
import contextlib
import os
import secrets
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

EXIT_USAGE = 64
EXIT_UNAVAILABLE = 69
EXIT_CRASH = 70


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(EXIT_USAGE, f"{self.prog}: {message}\n")


def main(argv: list[str]) -> int:
    """Run one command; returns the exit status."""
    # Late, so that `--help` is quick and the process of `run` loads only what it needs.
    from relay.store.protocol import StoreError  # noqa: PLC0415
    from wire.errors import BlindpostError  # noqa: PLC0415

    arguments = _parser().parse_args(argv)
    try:
        status: int = arguments.command(arguments)
        return status
    except (BlindpostError, StoreError, OSError) as error:
        print(f"relay: {error}", file=sys.stderr)
        return EXIT_UNAVAILABLE
    except Exception as error:
        # Where it happened and of what kind; not its words, which could hold what the relay must not tell.
        print(f"relay: {type(error).__name__}", *traceback.format_tb(error.__traceback__), sep="\n", file=sys.stderr)
        return EXIT_CRASH


def _parser() -> _Parser:
    parser = _Parser(prog="python -m relay", description="A Blindpost relay.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=_Parser)

    init = commands.add_parser("init", help="make a relay's home")
    where = init.add_mutually_exclusive_group()
    where.add_argument("--listen", metavar="HOST:PORT", help="listen with a broker of its own; port 0 picks a free one")
    where.add_argument("--broker", metavar="URL", help="use this broker: mqtt, mqtts, nats or tls://HOST:PORT")
    init.add_argument("--device-broker", metavar="URL", help="where devices reach it, for the card: mqtt or mqtts")
    init.set_defaults(command=_init)
    run = commands.add_parser("run", help="serve until SIGTERM")
    run.add_argument("--broker", metavar="URL", help="from now on use this broker; it is written to relay.toml")
    run.set_defaults(command=_run)
    tenant = commands.add_parser("tenant-add", help="admit a company")
    tenant.add_argument("domain")
    tenant.add_argument("admin_key", help="the company's public admin key, 64 hexadecimal digits")
    tenant.set_defaults(command=_tenant_add)
    order = commands.add_parser("order", help="order everything from a relay, running or not")
    order.add_argument("--out", type=Path, required=True)
    order.add_argument("--memory", action="store_true", help="with an image of its process's memory")
    order.set_defaults(command=_order)
    disclose = commands.add_parser("disclose", help="hand over the store of a relay that does not run")
    disclose.add_argument("--out", type=Path, required=True)
    disclose.set_defaults(command=_disclose)
    commands.add_parser("status", help="print a running relay's figures").set_defaults(command=_status)
    commands.add_parser("stop", help="stop a running relay").set_defaults(command=_stop)
    for command in commands.choices.values():
        command.add_argument("--home", type=Path, required=True, metavar="DIR", help="the relay's home")
    return parser


def _init(arguments: argparse.Namespace) -> int:
    from relay.home import init  # noqa: PLC0415
    from relay.logkey import ensure_log  # noqa: PLC0415

    home = init(arguments.home, secrets.token_bytes, arguments.listen, arguments.broker, arguments.device_broker)
    ensure_log(home, int(time.time()), secrets.token_bytes)
    print(f"relay={home.card.relay_id.hex()} broker={home.card.broker} home={home.path}")
    return 0


def _run(arguments: argparse.Namespace) -> int:
    from relay.home import Home, use_broker  # noqa: PLC0415
    from relay.process import serve  # noqa: PLC0415

    home = Home.open(arguments.home)
    if arguments.broker is not None:
        home = use_broker(home, arguments.broker)

    def ready() -> None:
        print(f"ready broker={home.card.broker} home={home.path}", flush=True)

    loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None
    with contextlib.suppress(ImportError):
        from uvloop import new_event_loop  # noqa: PLC0415

        loop_factory = new_event_loop
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(serve(home, ready))
    return 0


def _tenant_add(arguments: argparse.Namespace) -> int:
    from relay.process import tenant_add  # noqa: PLC0415
    from wire.errors import FormatError  # noqa: PLC0415

    try:
        admin_key = bytes.fromhex(arguments.admin_key)
    except ValueError:
        raise FormatError("admin key", "is not hexadecimal") from None
    tenant_add(arguments.home, arguments.domain, admin_key)
    return 0


def _order(arguments: argparse.Namespace) -> int:
    from relay.disclosure import take_wholesale  # noqa: PLC0415

    taken = take_wholesale(arguments.home, arguments.out, arguments.memory)
    image = f" memory_bytes={taken.memory.image_bytes}" if taken.memory is not None else ""
    print(f"files={taken.files} rotated={int(taken.rotated)}{image} out={taken.path}")
    return 0


def _disclose(arguments: argparse.Namespace) -> int:
    from relay.process import disclose_at_rest  # noqa: PLC0415

    print(f"files={disclose_at_rest(arguments.home, arguments.out)}")
    return 0


def _status(arguments: argparse.Namespace) -> int:
    from relay.control import Connection, Status, StatusRequest  # noqa: PLC0415
    from relay.home import Home  # noqa: PLC0415

    with Connection(Home.open(arguments.home).socket_path) as connection:
        status = connection.request(StatusRequest())
    assert isinstance(status, Status)
    for name, count in status.counts:
        print(f"{name}={count}")
    return 0


def _stop(arguments: argparse.Namespace) -> int:
    from relay.control import Connection, StopRequest  # noqa: PLC0415
    from relay.home import Home  # noqa: PLC0415

    with Connection(Home.open(arguments.home).socket_path) as connection:
        connection.request(StopRequest())
    return 0


if __name__ == "__main__":
    os.umask(0o077)
    sys.exit(main(sys.argv[1:]))
