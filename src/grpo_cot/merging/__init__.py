"""One 16-bit model of the trained weights, and the proof that it is the same model."""
