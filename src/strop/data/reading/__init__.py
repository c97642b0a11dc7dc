"""Reads raw rows from files, folders and hub data sets."""
