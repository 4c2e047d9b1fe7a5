"""What a user would pick instead of the relay, under the same work (benchmarks/peers/work.py), one module a peer."""
