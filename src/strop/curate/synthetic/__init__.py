"""Data that a model writes: instructions, answers that a reward picks, reasoning, revisions."""
