"""Scenarios that tests run: small, and quick."""

from typing import Final

SMALL: Final = """
name = "small"
title = "Two companies & one order"
start = 2015-11-02
days = 1
settle_hours = 1

[traffic]
chats_per_day = 12
mails_per_day = 3

[[jurisdiction]]
name = "Pakistan"
enforcement = "block"

[[jurisdiction]]
name = "Canada"

[[tenant]]
domain = "karachi.example"
jurisdiction = "Pakistan"
people = 5

[[tenant]]
domain = "acme.example"
jurisdiction = "Canada"
people = 5
devices_per_person = 1.4

[[assert]]
check = "no-receipted-envelope-lost"

[[assert]]
check = "none-delivered-twice"

[[assert]]
check = "arrived"
at_least = 1.0
"""
