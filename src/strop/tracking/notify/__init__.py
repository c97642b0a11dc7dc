"""Tells people of alarms, verdicts and ends: a webhook that is posted, a command that is run."""
