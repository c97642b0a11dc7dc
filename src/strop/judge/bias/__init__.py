"""The known errors of a judge, measured: order, length, formatting, its own family."""

from strop.judge.bias.length import length_controlled

__all__ = ["length_controlled"]
