"""From the files of the benchmarks to batches of token ids, and from answers to scores."""
