"""Judges: what is asked, how verdicts are read, what biases them and how far to believe them."""
