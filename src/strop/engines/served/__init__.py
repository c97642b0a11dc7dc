"""Engines in other processes, which give and take token ids over HTTP."""
