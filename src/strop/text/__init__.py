"""Between messages and token ids: `render` and `trees` go one way, `parse` the other."""
