"""`strop data generate`: a file for what its verbs share, and one for the verbs."""
