"""Finds the answer in a text, reads it as a number, compares it as mathematics."""
