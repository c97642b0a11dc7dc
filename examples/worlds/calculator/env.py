"""A calculator as a class in TRL's `environment_factory` form."""


class Calculator:
    def reset(self, **columns: object) -> None:
        """Nothing to begin with: the calculator keeps no state."""

    def calculate(self, a: int, op: str, b: int) -> str:
        """Work out one operation.

        Args:
            a: The first number.
            op: One of + - *.
            b: The second number.
        """
        return str({"+": a + b, "-": a - b, "*": a * b}[op])
