"""Games and players of the user's own, from a class in a file; tried before anybody plays."""
