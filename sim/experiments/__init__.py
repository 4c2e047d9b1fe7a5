"""The experiments behind the claims: each runs an attack, its twin that must succeed, and says what it measured.

One module or package an experiment, each with one `run` that returns a `Result` (result.py). `blindpost prove NAME`
runs one, `blindpost prove all` runs every one and states the results under a signature; docs/claims.md has the claims.
"""
