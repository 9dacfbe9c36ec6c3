"""What changes a plain training: mixed and destroyed images, averaged weights, frozen layers, merged centres."""
