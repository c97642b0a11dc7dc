"""Chat templates: render messages with a model's own template, and find what the template leaves
out."""
