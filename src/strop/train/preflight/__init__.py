"""Work before step 1: refuse bad recipes, read the data, render it, check it."""
