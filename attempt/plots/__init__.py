"""Finished runs in pictures."""
