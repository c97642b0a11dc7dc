"""The run directory: who owns it, its files, checkpoints, and resuming from them."""
