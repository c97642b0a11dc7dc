"""Losses: one pure function per paper. Tensors and plain floats in, unreduced tensors out."""
