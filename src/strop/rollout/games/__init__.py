"""Two-player games: their rules, who plays them, and leagues of players."""
