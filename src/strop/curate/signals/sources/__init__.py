"""One file a source: rows of an export -> interactions and the signals about them."""
