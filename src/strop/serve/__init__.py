"""Serves models to applications, and listens to what their users say."""
