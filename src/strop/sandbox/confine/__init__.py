"""Confines a process: limits, Landlock, an allow-list of system calls."""
