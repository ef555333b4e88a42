# Runs the stages of dvc.yaml in parallel, on this machine's cores or on Slurm: snakemake --profile workflow/profiles/local
# There is no second pipeline here. DVC says what is stale, runs each stage and records it; Snakemake says when and where.
import re
import sys
from pathlib import Path

sys.path[:0] = [str(Path(workflow.basedir) / "src"), str(Path(workflow.basedir) / "workflow")]
from stages import FOLDER, load_plan, marker

from grpo_cot.common.errors import InputError

# Snakemake itself knows only later that this is a dry run.
rehearsal = any(re.fullmatch("-[a-z]*n[a-z]*|--dry-?run", word) for word in sys.argv)
try:
    plan = load_plan(main=workflow.is_main_process, rehearsal=rehearsal)
except InputError as error:
    sys.exit(f"snakemake: {error}")


localrules:
    all,
    grades,


rule all:
    input:
        [marker(stage) for stage in plan],


# What the index page needs: no merged model, and no page of each run.
rule grades:
    input:
        [marker(stage) for stage in plan if stage.split("@")[0] in {"grade", "compare"}],


for group in dict.fromkeys(stage.split("@")[0] for stage in plan):

    rule:
        name: group
        message:
            "{wildcards.stage} (log: {log})"
        input:
            lambda wildcards: [ancient(marker(stage)) for stage in plan[wildcards.stage].after],
        output:
            touch(FOLDER / "{stage}.done"),
        log:
            FOLDER / "{stage}.log",
        wildcard_constraints:
            stage="|".join(re.escape(stage) for stage in plan if stage.split("@")[0] == group),
        threads: lambda wildcards: plan[wildcards.stage].resources["threads"]
        resources:
            mem_mb=lambda wildcards: plan[wildcards.stage].resources.get("mem_mb", 1000),
            runtime=lambda wildcards: plan[wildcards.stage].resources.get("runtime", 60),
            gpu=lambda wildcards: plan[wildcards.stage].resources.get("gpu", 0),
        params:
            python=sys.executable,
            program=Path(workflow.basedir) / "workflow/stage.py",
            options=lambda wildcards: plan[wildcards.stage].options,
        shell:
            "{params.python:q} {params.program:q} {wildcards.stage} {params.options} > {log} 2>&1"
