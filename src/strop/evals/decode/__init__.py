"""Compares sampling more from the base with training: accuracy at equal numbers of tokens."""
