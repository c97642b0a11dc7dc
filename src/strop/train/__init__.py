"""The training loops, offline and online, and what they are made of."""
