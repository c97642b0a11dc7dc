"""Engines generate tokens: a model in this process, a server, recorded answers."""
