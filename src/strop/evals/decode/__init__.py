"""Sampling more against training more: what many samples are worth, at equal tokens."""
