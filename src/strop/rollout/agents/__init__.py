"""Agents that ask an OpenAI-compatible server: the model in training answers, and what they asked
becomes their episode."""
