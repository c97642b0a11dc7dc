"""The tools of an episode: what they are called by, and what a call comes to."""
