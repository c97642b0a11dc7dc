"""Recipes are the files that users write: frozen, every key checked, nothing silently ignored."""
