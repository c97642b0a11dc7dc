"""Teachers of a distillation: who they are, what they read, and what they said."""
