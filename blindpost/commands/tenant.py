"""`blindpost tenant`: a company is admitted by the relay, and activates the accounts of its own people."""

import time
from pathlib import Path
from typing import Final

from blindpost.files import check_absent, write_new
from blindpost.parser import Options, Parser, Subparsers, account, add_command, add_family, add_home, domain, home_of
from blindpost.passphrase import add_passphrase_options, read_passphrase

__all__ = ["add_commands"]

_DAY_S: Final = 86_400


def add_commands(subparsers: "Subparsers[Parser]") -> None:
    """Add the family."""
    family = add_family(subparsers, "tenant", "admit a company, and activate its people's accounts")
    parser = add_command(
        family,
        "add",
        summary="admit a company to a relay; its admin key goes into a file",
        description=(
            "Makes a company's admin key, gives the relay its public half (through its control socket while it runs, "
            "into its store while it does not), and writes the key to KEYFILE: mode 0600, sealed under a passphrase. "
            "The key admits accounts of that domain; it reads nobody's mail, and the relay never has it."
        ),
        examples=(
            "blindpost tenant add acme.example --home relay --out acme.key",
            "blindpost tenant add globex.example --home relay --out globex.key --passphrase-file globex.pass",
        ),
        run=_add,
    )
    parser.add_argument("domain", type=domain, metavar="DOMAIN", help="the company's domain")
    add_home(parser, "the relay's folder")
    parser.add_argument("--out", type=Path, metavar="KEYFILE", required=True, help="where the admin key is written")
    parser.add_argument(
        "--unprotected",
        action="store_true",
        help="no passphrase: whoever reads the file can admit accounts to the domain (for tests, or a sealed disk)",
    )
    add_passphrase_options(parser)
    parser = add_command(
        family,
        "activate",
        summary="sign a token with which one account can be made, once",
        description=(
            "Writes a token that makes one account of the company's domain: it works once, until it expires, at any "
            "relay that has admitted the company. Whoever has the token first has the account, so hand it over in "
            "person or sealed."
        ),
        examples=(
            "blindpost tenant activate --key acme.key --account ana@acme.example --out ana.token",
            "blindpost tenant activate --key acme.key --account omar@acme.example --days 1 --out omar.token",
        ),
        run=_activate,
    )
    parser.add_argument("--key", type=Path, metavar="KEYFILE", required=True, help="the company's admin key")
    parser.add_argument("--account", type=account, metavar="ADDRESS", required=True, help="the account")
    parser.add_argument("--days", type=_days, default=7, metavar="N", help="how long it works, 1 to 365 (default: 7)")
    parser.add_argument("--out", type=Path, metavar="TOKEN", required=True, help="where the token is written")
    add_passphrase_options(parser)


def _days(text: str) -> int:
    import argparse

    if not (text.isascii() and text.isdigit() and len(text) <= 3 and 1 <= int(text) <= 365):
        raise argparse.ArgumentTypeError(f"{text[:20]!r} is not a number of days from 1 to 365")
    return int(text)


def _activate(options: Options) -> int:
    from blindpost.credentials import TenantKey, token_line
    from blindpost.errors import UsageError
    from wire.identity import domain_of

    check_absent(options.out)
    sealed = TenantKey.is_sealed(options.key)
    passphrase = read_passphrase(options, f"the admin key {options.key}") if sealed else b""
    key = TenantKey.read(options.key, passphrase)
    if domain_of(options.account) != key.domain:
        raise UsageError(
            f"{options.account} is no account of {key.domain}", f"{options.key} admits accounts of {key.domain} only"
        )
    not_after = int(time.time()) + options.days * _DAY_S
    write_new(options.out, token_line(key.admin.activate(options.account, not_after)), secret=True)
    until = time.strftime("%Y-%m-%d %H:%M", time.gmtime(not_after))
    print(f"{options.out}: makes {options.account} once, until {until} UTC")
    return 0


def _add(options: Options) -> int:
    from blindpost.credentials import TenantKey
    from blindpost.errors import CommandError
    from blindpost.exit_status import ExitStatus
    from keys.identity import TenantAdminKey
    from relay.process import tenant_add
    from relay.store.protocol import StoreError

    home = home_of(options)
    check_absent(options.out)
    key = TenantKey(options.domain, TenantAdminKey.generate())
    if options.unprotected:
        data = key.unprotected()
    else:
        data = key.sealed(read_passphrase(options, f"the admin key of {options.domain}", new=True))
    # The key is on the disk before the relay knows it: a company that is admitted under a key that a crash has lost
    # could never be admitted again.
    write_new(options.out, data, secret=True)
    try:
        tenant_add(home, options.domain, key.admin.public)
    except StoreError as error:
        options.out.unlink()
        raise CommandError(f"the relay's store did not take it: {error}", "", ExitStatus.IO) from None
    except BaseException:
        options.out.unlink()
        raise
    print(f"{options.domain}: admitted by the relay in {home}")
    print(f"{options.out}: its admin key" + (", without a passphrase" if options.unprotected else ""))
    return 0
