"""The registry of promoted models: what each was made from, and why it was promoted."""
