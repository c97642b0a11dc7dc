"""What happens before step 1: refused, read, rendered, checked."""
