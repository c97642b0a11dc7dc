"""strop beside TRL on the same work: `make bench`."""
