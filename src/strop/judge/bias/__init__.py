"""The known errors of a judge, measured: order, length, formatting, its own family."""

from strop.judge.bias.length import length_controlled
from strop.judge.bias.own_family import SelfPreference, self_preference
from strop.judge.bias.position import PositionBias, consistent, position_bias

__all__ = [
    "PositionBias",
    "SelfPreference",
    "consistent",
    "length_controlled",
    "position_bias",
    "self_preference",
]
