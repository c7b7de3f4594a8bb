"""Rules that lead from the keys of published checkpoints to the names of our networks."""
