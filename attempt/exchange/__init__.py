"""Prompts to and from other programs."""
