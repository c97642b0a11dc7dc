"""Keeps a registry whole: hashes again, deletes what nothing needs, makes a damaged one anew."""
