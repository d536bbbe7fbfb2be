"""Finished runs on one page."""
