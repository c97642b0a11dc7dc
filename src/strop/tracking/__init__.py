"""A run's log, its report, and the trackers that receive its metrics."""
