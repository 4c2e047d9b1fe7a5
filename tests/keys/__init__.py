"""Tests of keys/."""
