"""The papers' claims, tried: python -m benchmarks.replication; docs/replication.md has the results."""
