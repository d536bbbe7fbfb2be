"""The papers' claims, tried with this program: python -m benchmarks.replication; docs/replication.md has the results."""
