"""The story of a run, read from its folder: a sentence, its curves, its alarms, its samples."""
