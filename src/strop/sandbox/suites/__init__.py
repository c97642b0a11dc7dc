"""Reads tests as people write them. Trusted code of the referee; nothing here runs a candidate."""
