"""Generated rows without final answers: sentences of feedback, and pairs of a right and a wrong answer."""
