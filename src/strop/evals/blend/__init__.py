"""What is gained and what is forgotten along the weight of a blend."""
