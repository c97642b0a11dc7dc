"""What is known of the data, the evals and the model."""
