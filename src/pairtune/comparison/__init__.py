"""Comparison: several methods on the same pairs, prompts, reference and decoding, and what can honestly be said."""
