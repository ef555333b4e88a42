"""Judging texts that have no final answer: an independent judge, and the measures of judged texts and pairs."""
