"""What images, categories and shares of classes have to do with each other, taken into class probabilities."""
