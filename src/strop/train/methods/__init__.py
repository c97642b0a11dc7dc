"""The ways to learn: one file a family, and one table of all methods."""
