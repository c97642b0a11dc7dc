"""A user's own reward functions: found in a file, guarded, run in a process of their own."""
