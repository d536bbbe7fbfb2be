"""Measurements of this program beside Hugging Face's transformers and peft; README.md here says how to run them."""
