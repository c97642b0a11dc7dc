"""Releases as archives: packed, unpacked, checked out."""
