"""The processes that work on one run together: what they share, and how they are started."""
