"""Several judges together: their votes, and a cheap one that hands on to a dear one."""

from strop.judge.panel.votes import dawid_skene, weighted_vote, weights

__all__ = ["dawid_skene", "weighted_vote", "weights"]
