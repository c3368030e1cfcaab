"""The three networks of the mini model, with the tensor names of MVDream's checkpoint."""
