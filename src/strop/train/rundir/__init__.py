"""The run directory: whose it is, what is written into it, and how a run comes back from it."""
