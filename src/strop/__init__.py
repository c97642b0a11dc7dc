"""strop: the last 20 % of a language model's quality."""

__version__ = "0.1.0"
