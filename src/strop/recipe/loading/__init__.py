"""From a YAML file to plain values: reading, overriding, and messages that name line and key."""
