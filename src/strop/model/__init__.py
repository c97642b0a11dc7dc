"""The network: loading, adapters, the tree forward, log-probs, saving."""
