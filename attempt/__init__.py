"""Soft prompts and their attentional mixture (ATTEMPT, Asai et al., EMNLP 2022)."""
