"""Teach a small language model to reason with GRPO, and prove that it worked."""

import gc
import logging
import os

# A thread of torch's pool that waits for work sleeps, and does not keep its core busy (GNU OpenMP reads this when torch
# is imported). On two cores a second process made both five to nine times slower; alone, nothing changes, nor do sums.
os.environ.setdefault("GOMP_SPINCOUNT", "0")

# Python looks for unreachable objects after every 700 new ones. The libraries' imports make millions, all reachable: in
# each step the search took a second and more.
gc.set_threshold(50_000)

# What libraries say at every load or run, whatever the user does, and what is so by intent. It is kept from the user
# here, for every step. A name is that of the logger, the words are the sentence's beginning.
SAID_IN_VAIN = {
    # An optional kernel of a hub is not there. It is not needed.
    "bitsandbytes.backends.cpu.ops": "Failed to load CPU gemm_4bit_forward",
    # A tokenizer's files call for a cleaning that would harm its kind, and it is left out.
    "transformers.tokenization_utils_tokenizers": "Ignoring clean_up_tokenization_spaces=True",
    # The tokenizer's end token is the chat template's (grpo_cot.models.turns), and the model is told.
    "transformers.trainer_utils": "The tokenizer has new PAD/BOS/EOS tokens",
    # mT5's class ties what its files hold twice. A base of which that is not meant is refused when it arrives.
    "transformers.modeling_utils": "The tied weights mapping and config for this model specifies to tie",
    # A base's own settings for sampling are dropped where greedy means greedy.
    "transformers.generation.configuration_utils": "The following generation flags are not valid",
}


def _silence(words: str) -> "logging._FilterType":
    return lambda record: not str(record.msg).startswith(words)


for _name, _words in SAID_IN_VAIN.items():
    logging.getLogger(_name).addFilter(_silence(_words))
