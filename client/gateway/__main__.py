"""`python -m client.gateway`: the gateway's own command line, as thin as can be; `blindpost gateway` leads here.

    python -m client.gateway run --home DIR [--broker URL]     prints `ready listen=… links=N home=DIR`

It serves until SIGTERM. Exit statuses: 0, 64 wrong usage, 69 the gateway cannot do it, 70 a fault of this program.
"""

import argparse
import asyncio
import contextlib
import sys
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
    """Run the command; returns the exit status."""
    # Late, so that `--help` is quick.
    from wire.errors import BlindpostError  # noqa: PLC0415

    parser = _Parser(prog="python -m client.gateway", description="A company's gateway to a Blindpost relay.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=_Parser)
    run = commands.add_parser("run", help="carry devices until SIGTERM")
    run.add_argument("--home", type=Path, required=True, metavar="DIR", help="the gateway's home")
    run.add_argument("--broker", metavar="URL", help="from now on use this broker; it is written to gateway.toml")
    arguments = parser.parse_args(argv)
    try:
        return _run(arguments)
    except (BlindpostError, OSError) as error:
        print(f"gateway: {error}", file=sys.stderr)
        return EXIT_UNAVAILABLE
    except Exception as error:
        # Where it happened and of what kind; not its words, which could hold what somebody said.
        print(f"gateway: {type(error).__name__}", *traceback.format_tb(error.__traceback__), sep="\n", file=sys.stderr)
        return EXIT_CRASH


def _run(arguments: argparse.Namespace) -> int:
    from client.gateway.home import GatewayHome  # noqa: PLC0415
    from client.gateway.process import serve  # noqa: PLC0415

    home = GatewayHome.open(arguments.home)
    if arguments.broker is not None:
        home = home.use_broker(arguments.broker)

    def ready() -> None:
        config = home.config
        print(f"ready listen={config.listen.host_and_port} links={home.usable_links()} home={home.path}", flush=True)

    loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None
    with contextlib.suppress(ImportError):
        from uvloop import new_event_loop  # noqa: PLC0415

        loop_factory = new_event_loop
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(serve(home, ready))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
