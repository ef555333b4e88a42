"""Build the images (`make images`), and say which image a step needs.

    python docker/images.py [NAME ...]    bring the keys in images.yaml up to date, then build NAME (default: cpu)
    python docker/images.py --keys-only   bring the keys up to date

GRPO_COT_ENGINE chooses docker (default), podman or apptainer. SSL_CERT_FILE, where set, is the certificate bundle that
pip uses inside the build. GRPO_COT_STANDIN_BASE, for tests, names another base image; what is built on it has another
key, and `docker/run` takes it only while that variable is set.
"""

import hashlib
import os
import subprocess
import sys
from io import StringIO
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from grpo_cot.common.errors import InputError
from grpo_cot.common.files import read_yaml, write_text

ROOT = Path(__file__).parent.parent
DOCKERFILE = ROOT / "docker/Dockerfile"
IMAGES = ROOT / "docker/images.yaml"
LOCKS = {"cpu": ("torch-cpu.txt", "cpu.txt"), "cuda": ("cuda-py311.txt", "cuda-py312.txt")}
STANDIN = "GRPO_COT_STANDIN_BASE"


def image_key(name: str, base: str) -> str:
    """12 hex digits over all that the image is made from: Dockerfile, base reference, locks."""
    locks = [(ROOT / "locks" / lock).read_bytes() for lock in LOCKS[name]]
    digests = [hashlib.sha256(part).digest() for part in (DOCKERFILE.read_bytes(), base.encode(), *locks)]
    return hashlib.sha256(b"".join(digests)).hexdigest()[:12]


def required_image(name: str) -> tuple[str, str]:
    """The reference and the key of the image that steps of this name run in.

    Raises:
        InputError: the key in images.yaml is not that of the files, or there is no such image.
    """
    images = read_yaml(IMAGES)
    if name not in images:
        raise InputError(f"there is no image {name!r}; docker/images.yaml has {', '.join(images)}")
    image = images[name]
    key = image_key(name, image["base"])
    if key != image["key"]:
        raise InputError(
            f"docker/images.yaml says that the image {name!r} is {image['key']}, but its Dockerfile, locks and base "
            f"make {key}; run `make images`"
        )
    if os.environ.get(STANDIN):
        key = image_key(name, os.environ[STANDIN])
        return f"grpo-cot:{name}-{key}", key
    return image["published"] or f"grpo-cot:{name}-{key}", key


def refresh_keys() -> None:
    """Write the keys that the files have now into images.yaml."""
    yaml = YAML()
    yaml.width = 200
    images: Any = yaml.load(IMAGES.read_text())
    for name, image in images.items():
        image["key"] = image_key(name, image["base"])
    text = StringIO()
    yaml.dump(images, text)
    write_text(IMAGES, text.getvalue())


def fetch_torch() -> None:
    """Put torch's CPU build where the build mounts it; pip's own configuration says where to look."""
    done = subprocess.run(
        [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes", "--only-binary", ":all:",
         "--python-version", "3.11", "--platform", "manylinux_2_28_x86_64", "--dest", ROOT / "locks/wheels",
         "--requirement", ROOT / "locks/torch-cpu.txt"],
        capture_output=True, text=True,
    )  # fmt: skip
    if done.returncode:
        raise InputError(
            "pip knows no place with torch's CPU build, which the image `cpu` holds; set PIP_EXTRA_INDEX_URL to "
            "PyTorch's CPU index, or PIP_FIND_LINKS to a folder with the wheel "
            f"({done.stderr.strip().splitlines()[-1]})"
        )


def build(name: str) -> str:
    """Build one image; its reference."""
    engine = os.environ.get("GRPO_COT_ENGINE") or "docker"
    engine = "docker" if engine == "host" else engine
    if engine not in ("docker", "podman", "apptainer"):
        raise InputError(f"GRPO_COT_ENGINE is {engine!r}, expected docker, podman or apptainer")
    needed, key = required_image(name)
    reference = f"grpo-cot:{name}-{key}"
    base = os.environ.get(STANDIN) or read_yaml(IMAGES)[name]["base"]
    if engine == "apptainer":
        target = ROOT / f".cache/images/{name}-{key}.sif"
        target.parent.mkdir(parents=True, exist_ok=True)
        source = f"docker://{needed}" if "@" in needed else f"docker-daemon:{reference}"
        subprocess.run(["apptainer", "build", target, source], check=True)
        return str(target)
    (ROOT / "locks/wheels").mkdir(exist_ok=True)
    if name == "cpu":
        fetch_torch()
    command: list[str | Path] = [
        engine, "build", "--network", "host", "--file", DOCKERFILE, "--target", name, "--tag", reference,
        "--build-arg", f"BASE_IMAGE={base}", "--build-arg", f"KEY={key}",
    ]  # fmt: skip
    if bundle := os.environ.get("SSL_CERT_FILE"):
        command += ["--secret", f"id=ca,src={bundle}"]
    subprocess.run([*command, ROOT / "locks"], check=True, env={**os.environ, "DOCKER_BUILDKIT": "1"})
    return reference


if __name__ == "__main__":
    try:
        refresh_keys()
        if sys.argv[1:] != ["--keys-only"]:
            for name in sys.argv[1:] or ["cpu"]:
                print(f"images: built {build(name)}")
    except InputError as error:
        sys.exit(f"images: {error}")
    except FileNotFoundError as error:
        sys.exit(f"images: {error.filename} is not installed; install it, or set GRPO_COT_ENGINE to another engine")
    except subprocess.CalledProcessError as error:
        sys.exit(f"images: the build failed with status {error.returncode}; what the engine said stands above")
