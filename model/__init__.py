"""T5 by hand: the network, its checkpoints and its tokenizer."""
