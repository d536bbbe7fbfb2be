"""A small world of controlled English: its corpora, its tiny T5, and how both are made."""
