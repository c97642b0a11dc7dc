"""Measures models, and decides from the measurements whether a model may be promoted."""
