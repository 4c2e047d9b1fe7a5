"""The commands, one module a family; each adds its parsers and loads what it needs only when it runs."""

from collections.abc import Callable

from blindpost.commands import (
    audit,
    bench,
    broker_config,
    canary,
    certificate,
    chat,
    demo,
    device,
    gateway,
    log,
    mail,
    mydata,
    order,
    prove,
    receive,
    relay,
    safety_number,
    simulate,
    tenant,
    transparency_report,
    volunteer,
)
from blindpost.parser import Parser, Subparsers

__all__ = ["FAMILIES"]

FAMILIES: tuple[Callable[["Subparsers[Parser]"], None], ...] = (
    demo.add_commands,
    relay.add_commands,
    certificate.add_commands,
    broker_config.add_commands,
    tenant.add_commands,
    gateway.add_commands,
    device.add_commands,
    mail.add_commands,
    chat.add_commands,
    receive.add_commands,
    safety_number.add_commands,
    canary.add_commands,
    order.add_commands,
    log.add_commands,
    transparency_report.add_commands,
    mydata.add_commands,
    volunteer.add_commands,
    audit.add_commands,
    simulate.add_commands,
    prove.add_commands,
    bench.add_commands,
)
"""In the order in which a person meets them."""
