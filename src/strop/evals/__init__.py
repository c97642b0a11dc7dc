"""Measuring a model, and deciding from the measurements."""
