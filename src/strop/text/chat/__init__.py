"""Chat templates: what a model's own template makes of messages, and what it leaves out."""
