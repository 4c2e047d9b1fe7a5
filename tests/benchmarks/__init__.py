"""Tests of benchmarks/: that they run, check what they measure, and say what they left out."""
