"""One file a model: `train(settings, run)` returns the weights and what they are worth."""
