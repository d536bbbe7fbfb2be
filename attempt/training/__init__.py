"""What happens in a run: first values, steps, evaluations, records, and series of runs."""
