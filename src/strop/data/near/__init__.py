"""Near-duplicates among millions of texts: found through MinHash, decided by comparing them."""
