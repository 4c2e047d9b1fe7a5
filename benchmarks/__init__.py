"""Throughput and latency, open loop, peers side by side."""
