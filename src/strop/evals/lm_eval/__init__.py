"""lm-eval: runs its tasks on our models, and reads its logs."""
