"""Simulated users: by a script, by a class of the user's own, or played by a model."""
