"""The training methods: one file per family, and one table of all methods."""
