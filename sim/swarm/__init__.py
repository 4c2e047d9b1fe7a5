"""The swarm: random scenarios with random faults, judged by invariants, in the manner of FoundationDB and TigerBeetle.

generate.py     a seed's scenario, as the tree of a TOML file
bodies.py       real texts, sealed for real, in place of random bytes
witness.py      sees every packet and every commit of the relay from outside, and judges
trial.py        one scenario, run and judged
bugs.py         planted bugs: one part of relay, client or engine replaced
shrink.py       a failing scenario made smaller
swarm.py        many seeds over processes, within a time
"""
