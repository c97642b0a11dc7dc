"""One family of findings a file, each a function of what was gathered."""
