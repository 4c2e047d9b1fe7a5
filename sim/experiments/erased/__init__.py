"""Erased is erased: after ack, withdrawal or expiry no byte run of an envelope is left in files, and who leaves some.

    result = run(progress=...)

raw.py searches files, process.py is killed at awkward moments, homes.py has the relay at work and what a device keeps,
brokers.py the brokers that could keep a copy, experiment.py puts them together.
"""

from sim.experiments.erased.experiment import run

__all__ = ["run"]
