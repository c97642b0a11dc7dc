"""`strop data`: a file for each verb."""
