"""Records: read from disk (`sources`), checked (`records`), ordered into steps (`order`)."""
