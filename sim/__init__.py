"""Scenarios, jurisdictions, virtual time, faulty networks, and the mutants: relays and clients that cheat."""
