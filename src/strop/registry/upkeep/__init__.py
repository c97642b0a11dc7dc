"""Maintains a registry: verifies files, deletes unneeded ones, rebuilds a damaged database."""
