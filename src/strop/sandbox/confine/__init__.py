"""What shuts a process in: limits, Landlock, a list of system calls."""
