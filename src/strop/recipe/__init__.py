"""Recipes: what a user writes. Frozen, every key checked, nothing silently ignored."""
