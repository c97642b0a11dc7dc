"""Users of the tests' own."""


class Customer:
    """Wants a refund, says so when asked, and is content once it was promised."""

    def reset(self, patience: int = 2, **columns: object) -> None:
        self.left, self.content = patience, 0.0

    def reply(self, said: str) -> str:
        """Answer the assistant.

        Args:
            said: What the assistant said.
        """
        if "refund" in said:
            self.content = 1.0
            return ""
        self.left -= 1
        return "I was charged twice." if self.left else ""

    def get_reward(self) -> float:
        return self.content


class Talker:
    """Has a second method, which no user has."""

    def reset(self, **columns: object) -> None: ...

    def reply(self, said: str) -> str:
        """Answer.

        Args:
            said: What was said.
        """
        return said

    def hang_up(self) -> str:
        """Ends the call."""
        return ""
