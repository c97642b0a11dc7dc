"""Training runs: preflight checks, the offline and online loops, methods, monitors, run folders."""
