"""Tests a reward before training on it: probes, gold answers, dominance, symptoms."""
