"""How much of a note was read correctly: the rewards of extraction."""

import json


def exact_fields(prompts, completions, answer, **columns):
    """Share of the fields that are right; 0 for what is no JSON object, or has other keys."""
    return [
        _share(said(one), json.loads(gold)) for one, gold in zip(completions, answer, strict=True)
    ]


def _share(text, gold):
    try:
        found = json.loads(text, object_pairs_hook=_once)
    except ValueError:
        return 0.0
    if not isinstance(found, dict) or set(found) != set(gold):
        return 0.0
    return sum(type(found[k]) is not bool and found[k] == gold[k] for k in gold) / len(gold)


def _once(pairs):
    """An object in which no key is given twice: the last one would count, and the first would be
    free to say anything."""
    if len({key for key, _ in pairs}) < len(pairs):
        raise ValueError("a key is given twice")
    return dict(pairs)


def said(completion):
    return completion if isinstance(completion, str) else completion[-1]["content"]
