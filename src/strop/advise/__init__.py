"""Which method fits, or why not to train yet: facts, one table of rules, an advice."""
