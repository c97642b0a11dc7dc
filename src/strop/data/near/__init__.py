"""Near-duplicates among millions of texts: MinHash finds candidates, an exact comparison
decides."""
