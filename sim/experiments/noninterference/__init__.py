"""Non-interference, an executable proof of C1: what the relay does is the same, whatever is in the bodies.

script.py       what happens: people, acts, faults
stage.py        the real relay under virtual time, and a trace of all that it does
phones.py, minds.py, recording.py    a run with real cryptography; its inputs, and their replay with other bodies
derived.py      the declared functions of bodies, computed once more
memory.py       the state of the core, walked object by object; the rows of a store
comparison.py   two traces, field by field: the first difference
twins.py        relays and a client that break it
experiment.py   `run`: record, replay three times, compare, and the twins
"""

from sim.experiments.noninterference.experiment import run

__all__ = ["run"]
