"""What was found, for a terminal and as a page."""
