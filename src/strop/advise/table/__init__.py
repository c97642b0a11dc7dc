"""The table of rules: read from a file, walked, each condition answered yes, no or unknown."""
