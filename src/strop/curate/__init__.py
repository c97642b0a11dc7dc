"""What makes data: which records are worth training on."""
