"""Records: read from disk (`sources`), checked (`records`), turned into trees (`trees`)."""
