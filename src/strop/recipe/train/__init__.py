"""What a training recipe says: a class for each method, and its parts."""
