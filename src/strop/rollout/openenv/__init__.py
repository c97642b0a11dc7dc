"""Environments that an OpenEnv server holds, one session an episode."""
