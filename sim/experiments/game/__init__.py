"""A distinguishing game with error bars: evidence for claim C1 (experiment.py has the rules, plan.py the statistics).

What will be done is in plan.py and intervals.py, hashed before the run; all randomness of an episode in chance.py; the
two worlds and the pattern that they share in contents.py, the real client and the leaky ones in suites.py; the real
relay core under virtual time in stage.py, and what an adversary gets to see of it in episode.py. features.py measures,
adversaries.py guesses, playing.py spreads both over processes, picture.py draws the result.
"""

from sim.experiments.game.experiment import run
from sim.experiments.game.intervals import NotInstalled
from sim.experiments.game.picture import page_section
from sim.experiments.game.plan import Plan, View

__all__ = ["NotInstalled", "Plan", "View", "page_section", "run"]
