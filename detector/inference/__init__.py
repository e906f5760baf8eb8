"""Detection in images and files, test-time augmentation, latency."""
