"""How hard and how good records are, and which of them are kept for it."""
