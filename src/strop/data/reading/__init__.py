"""Rows from files, folders and hub data sets, as they stand there."""
