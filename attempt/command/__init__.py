"""What a run may be asked for: its options, as flags."""
