"""Several models of one architecture as one: a function a paper, and the streaming around it."""
