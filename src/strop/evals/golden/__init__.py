"""Eval sets mined from production records, frozen with a hash."""
