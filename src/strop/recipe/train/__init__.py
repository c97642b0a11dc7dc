"""Training recipes: a class for each group of methods, and the parts of a recipe."""
