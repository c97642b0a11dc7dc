"""Where tokens come from: a model in this process, a server, recorded answers."""
