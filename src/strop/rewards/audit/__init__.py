"""A reward attacked before it is trained on: probes, golds, dominance, symptoms."""
