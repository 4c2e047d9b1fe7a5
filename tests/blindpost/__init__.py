"""Tests of the command line, the web page and the sample mail."""
