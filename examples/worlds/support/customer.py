"""A customer who does not say at first what is wrong, but does when asked."""

NEEDS = {
    "late": ("My parcel never came.", "send it again"),
    "broken": ("It came in pieces.", "send a new one"),
    "double": ("I was charged twice.", "give the money back"),
    "size": ("It is too small.", "send a larger one"),
    "login": ("I cannot log in.", "reset your password"),
    "cancel": ("I do not want it any more.", "cancel the order"),
}
"""Need -> what the customer says when asked, and words of the help that solves it."""

POLITE = ("please", "sorry", "thank")
SOLVED, BRIEF, COURTEOUS = 0.5, 0.25, 0.25
"""What the reward is made of. The whole of BRIEF is for two turns, half of it for three."""


class Customer:
    def reset(self, *, need: str, **columns: object) -> None:
        self._told, self._help = NEEDS[need]
        self._turns = 0
        self._solved = self._polite = False

    def reply(self, said: str) -> str:
        """Answer the assistant.

        Args:
            said: What the assistant said.
        """
        self._turns += 1
        words = said.lower()
        self._polite = self._polite or any(word in words for word in POLITE)
        offered = [help_ for _, help_ in NEEDS.values() if help_ in words]
        if offered == [self._help]:
            self._solved = True
            return ""
        if offered:
            return "That does not help me."
        return self._told if "?" in said else "And now?"

    def get_reward(self) -> float:
        """0 for a need that was not met, else 0.5 to 1."""
        if not self._solved:
            return 0.0
        brief = BRIEF * max(0.0, 1.0 - max(0, self._turns - 2) / 2)
        return SOLVED + brief + COURTEOUS * self._polite
