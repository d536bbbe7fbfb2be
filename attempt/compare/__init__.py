"""Finished runs beside each other, in tables."""
