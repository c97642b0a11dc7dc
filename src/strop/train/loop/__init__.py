"""The loops, offline and online, and the one place that steps an optimizer."""
