"""Values with their reduction, and the append-only run log."""
