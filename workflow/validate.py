"""`make check`: validate params.yaml, every recipe and every source file, one sentence a problem.

With --listed, as before a run, only what params.yaml names.
"""

import gc
import os
import sys
from pathlib import Path

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")  # models are described here, and none is made
from grpo_cot.checks.project import problems

gc.freeze()  # the libraries' objects stay: collecting among them at every rehearsed training takes half a second
files, sentences = problems(Path(__file__).parent.parent, listed="--listed" in sys.argv[1:])
for sentence in sentences:
    print(f"check: {sentence}", file=sys.stderr)
if sentences:
    sys.exit(1)
print(f"check: params.yaml, recipes and sources are valid ({files} files)")
