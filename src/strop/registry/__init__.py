"""What was promoted, from what it was made, and why it was let through."""
