"""How a judge is asked: who it is, in which words, and how its verdict is read."""
