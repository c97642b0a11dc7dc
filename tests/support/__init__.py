"""What several tests stand on: models, runs, rollouts, processes."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[2]
"""The checkout: README.md, docs/, examples/, src/."""
