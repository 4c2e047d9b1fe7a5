"""Scenarios: the TOML format as typed, checked records, and how a file becomes one (docs/scenarios.md)."""
