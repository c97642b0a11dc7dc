"""Answers as people write them: found in a text, read as numbers, compared as mathematics."""
