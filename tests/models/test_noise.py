"""What libraries say in vain is kept from the user; what else they say is not."""

import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow
# Each is caused for real, in a process that has imported what every step imports.
CAUSES = """
import grpo_cot.common.step
import tempfile
import bitsandbytes
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, GenerationConfig, LlamaConfig, LlamaForCausalLM
from transformers import MT5Config, MT5ForConditionalGeneration
from transformers.trainer_utils import align_special_tokens
from transformers.utils import logging

tokenizer = AutoTokenizer.from_pretrained("assets/tiny/model", clean_up_tokenization_spaces=True)
tokenizer.decode([1, 2, 3])
sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}
logging.disable_progress_bar()
align_special_tokens(LlamaForCausalLM(LlamaConfig(vocab_size=600, **sizes)), tokenizer)
own = MT5ForConditionalGeneration(MT5Config(vocab_size=9, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2))
with tempfile.TemporaryDirectory() as folder:
    own.save_pretrained(folder)
    weights = load_file(f"{folder}/model.safetensors")
    weights["lm_head.weight"] = weights["shared.weight"] + 1
    save_file(weights, f"{folder}/model.safetensors", {"format": "pt"})
    MT5ForConditionalGeneration.from_pretrained(folder)
GenerationConfig(do_sample=False, temperature=0.5).validate()
logging.get_logger("transformers.trainer_utils").warning("The disk is on fire")
"""


def test_what_libraries_say_in_vain_is_not_heard() -> None:
    done = subprocess.run([sys.executable, "-c", CAUSES], capture_output=True, text=True, check=True)
    assert done.stderr.splitlines() == ["[transformers] The disk is on fire"]
    assert done.stdout == ""
