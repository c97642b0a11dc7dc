"""One recipe at several values: successive halving, and whether the best is really better."""
