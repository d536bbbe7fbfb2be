"""Soft prompts and their attentional mixture (ATTEMPT, Asai et al., EMNLP 2022)."""

__version__ = "0.1.0"
