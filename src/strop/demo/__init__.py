"""The algebra world: a whole run from raw model to promotion, small enough for a laptop."""
