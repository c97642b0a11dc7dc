"""Loads YAML files as plain values, with overrides and with messages that name line and key."""
