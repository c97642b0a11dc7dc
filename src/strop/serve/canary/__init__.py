"""A new version on trial: who gets it, what is said of it, when it is taken back."""
