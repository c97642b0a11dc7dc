"""`strop registry`: its verbs."""
