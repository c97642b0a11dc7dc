"""What was asked, answered and said of it, kept on the disk."""
