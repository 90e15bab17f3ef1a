"""Training: recipe, loop, optimisers, averages, checkpoints and the run folder."""
