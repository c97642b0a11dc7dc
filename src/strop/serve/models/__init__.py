"""The weights that are served, by the names under which they are asked for."""
