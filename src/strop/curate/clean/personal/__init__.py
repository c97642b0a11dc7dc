"""Personal data and secrets: where they stand in a text, and placeholders in their place."""
