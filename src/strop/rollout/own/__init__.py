"""A user's own class in TRL's `environment_factory` form as a toolbox, each episode's instance in a
process of its own."""
