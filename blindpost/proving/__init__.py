"""The commands of `blindpost prove`: one module an experiment of sim/experiments, and what shows and states results."""
