"""What several of the other systems share: trainer arguments, losses, a file with the reward."""
