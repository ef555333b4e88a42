"""One 16-bit model of what was trained, and the proof that it is the same model."""
