"""Configs of other systems as recipes."""
