"""What watches a run: alarms, reward hacking, dev suites, updates that are not finite, profiles."""
