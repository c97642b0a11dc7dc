"""Finds a user's own reward functions in a file and runs them, guarded, in a separate process."""
