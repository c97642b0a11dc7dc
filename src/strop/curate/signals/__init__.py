"""What a product leaves behind (logs, thumbs, edits, tickets) -> records to train on."""
