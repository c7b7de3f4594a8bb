"""Which networks there are, where their files lie, how they are read. No torch until tensors are read."""
