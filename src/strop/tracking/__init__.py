"""What a run leaves for people: its log, its report, and where its figures are sent."""
