"""`python -m strop.cli` is the `strop` command."""

from strop.cli import main

main()
