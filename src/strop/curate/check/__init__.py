"""What is wrong with data before it is trained on: one pass, then one family of findings a file."""
