"""What is wrong with a text, and what can be mended: personal data, language, damage, openings."""
