"""What a recipe says, built: network, trainer, images, batches; one function each, for training and prediction."""
