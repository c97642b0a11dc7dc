"""Values between a candidate's process and the referee: copies of data, never code."""
