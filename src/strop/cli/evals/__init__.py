"""`strop eval`: a suite, a golden set, a decoding study."""
