"""The demo's own rewards: plain functions with TRL's signature."""


def no_filler(prompts, completions, **columns):
    """1.0 for an answer that starts with the work, 0.0 for one that opens with "Sure!"."""
    return [float(not said(completion).startswith("Sure")) for completion in completions]


def long_enough(prompts, completions, **columns):
    """Grows with length up to 120 characters: easy to measure, and easy to game."""
    return [min(len(said(completion)), 120) / 120 for completion in completions]


def said(completion):
    return completion if isinstance(completion, str) else completion[-1]["content"]
