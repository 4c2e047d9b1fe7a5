"""Mutants: relays and clients that cheat, each in one way, and the controls that see them caught.

catalogue.py has the list, relay_side.py and client_side.py the cheats, proofs.py the proof that each works,
controls.py the run. `python -m sim.mutants` runs them all.
"""
