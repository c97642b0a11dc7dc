"""Between messages and token ids: `render` goes one way, `parse` the other."""
