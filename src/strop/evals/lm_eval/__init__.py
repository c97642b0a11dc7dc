"""lm-eval: its tasks on our models, and what it logged."""
