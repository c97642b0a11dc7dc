"""A run's story as text: sparklines, numbers, alarms and samples in a hundred columns."""
