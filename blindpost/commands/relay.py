"""`blindpost relay`: make a relay's folder, and run the relay in it.

`run` replaces this process by `python -m relay`: the relay's process has then never loaded a client, a ratchet or a
vault, and the disclosure's list of loaded modules can say so.
"""

import importlib.util
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
    family = add_family(subparsers, "relay", "make and run a relay")
    parser = add_command(
        family,
        "init",
        summary="make a relay's folder: keys, settings and its public card",
        description=(
            "Makes the folder with the relay's signing key (mode 0600) and DIR/relay-card.toml, which is public: hand "
            "it to everybody who uses or audits the relay. The relay brings a broker of its own unless --broker names "
            "one."
        ),
        examples=(
            "blindpost relay init --home relay",
            "blindpost relay init --home relay --listen 127.0.0.1:1883",
            "blindpost relay init --home relay --broker mqtt://broker.example:1883",
            "blindpost relay init --home relay --broker nats://127.0.0.1:4222 --device-broker mqtt://relay.example:1883",
        ),
        run=_init,
    )
    add_home(parser, "the relay's folder, which is made")
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "--listen",
        metavar="HOST:PORT",
        help="where the relay's own broker listens; port 0 picks a free one (default: 127.0.0.1:0)",
    )
    where.add_argument(
        "--broker",
        metavar="URL",
        help="use this broker instead: mqtt://HOST:PORT, nats://HOST:PORT, or over TLS mqtts:// and tls:// (NATS)",
    )
    parser.add_argument(
        "--device-broker",
        metavar="URL",
        help="where devices reach that broker, for the card: mqtt://HOST:PORT or mqtts://HOST:PORT; needed with NATS, "
        "whose MQTT listener has a port of its own (default: as --broker)",
    )
    parser = add_command(
        family,
        "run",
        summary="serve until SIGTERM",
        description=(
            "Serves the relay in this folder until it gets SIGTERM or SIGINT; then it finishes what is under way and "
            "stops. Prints 'ready broker=URL home=DIR' when it takes links."
        ),
        examples=(
            "blindpost relay run --home relay",
            "blindpost relay run --home relay --broker nats://127.0.0.1:4222",
        ),
        run=_run,
    )
    add_home(parser, "the relay's folder")
    parser.add_argument(
        "--broker",
        metavar="URL",
        help="from now on use this broker; it is written to the relay's settings, and the card stays as it is "
        "(default: as the settings say)",
    )


def _run(options: Options) -> NoReturn:
    home = home_of(options)
    if not home.is_dir():
        raise CommandError(f"{home} is no folder", f"blindpost relay init --home {home}", ExitStatus.CONFIGURATION)
    spec = importlib.util.find_spec("relay")
    if spec is None or spec.origin is None:
        raise CommandError("the relay's package is not installed", "", ExitStatus.CONFIGURATION)
    # -P: the current folder is not searched for modules. The relay is then found where this program found it.
    root = str(Path(spec.origin).parent.parent)
    paths = [root, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    sys.stdout.flush()
    arguments = [sys.executable, "-P", "-m", "relay", "run", "--home", str(home)]
    if options.broker is not None:
        arguments += ["--broker", options.broker]
    os.execve(sys.executable, arguments, environment)  # noqa: S606 (no shell is wanted, and no name is looked up)


def _init(options: Options) -> int:
    import time

    from relay.home import CARD_NAME, init
    from relay.logkey import LOG_FOLDER, ensure_log

    path = home_of(options)
    home = init(path, os.urandom, listen=options.listen, broker=options.broker, device_broker=options.device_broker)
    ensure_log(home, int(time.time()), os.urandom)
    print(f"{path}: relay {home.card.relay_id.hex()} at {home.card.broker}")
    print(f"{path / CARD_NAME}: public, for everybody who uses or audits it")
    print(f"{path / LOG_FOLDER}: the public log of orders, for any web server (blindpost log mirror)")
    return 0
