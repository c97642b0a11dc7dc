"""The kinds of task of a suite: generated answers, choices, likelihoods, refusals, Python."""
