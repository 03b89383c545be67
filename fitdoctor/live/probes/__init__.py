"""Small experiments on the model in training, after which everything is as it was."""
