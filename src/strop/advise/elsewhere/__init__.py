"""A run as the config of another system, and such a config as a recipe."""
