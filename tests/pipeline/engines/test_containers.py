"""The steps in their image: a real Docker Engine and a real Podman, the image built from docker/Dockerfile.

No image registry is needed: the image stands on a stand-in for its base, which .ci/services makes.
"""

import http.server
import json
import os
import pwd
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import images
import launch
import pytest
from support import ROOT, outputs_in_lock

from grpo_cot.common.files import read_yaml
from pipeline.conftest import PARAMS, Project, new_project, use_systems_python

pytestmark = pytest.mark.slow
USER = pwd.getpwnam("nobody")
SECRETS = {
    "HF_TOKEN": "planted-hub-token",
    "WANDB_API_KEY": "planted-dashboard-key",
    "AWS_SECRET_ACCESS_KEY": "planted-storage-key",
}
ONE_RUN = PARAMS.replace(
    "  short-b: {recipe: short, dataset: few, base: tiny, image: cpu, seed: 2}\n", ""
).replace("b: short-b", "b: short-a")  # fmt: skip
PROBE = """\
import os, socket, sys
from pathlib import Path
print("variables:", " ".join(sorted(os.environ)))
print("values:", " ".join(os.environ.values()))
try:
    socket.create_connection(("127.0.0.1", int(sys.argv[1])), timeout=5).close()
    print("connected")
except OSError as error:
    print("no connection:", error)
print("user:", os.getuid(), "hidden:", [path.name for folder in (".dvc", ".git") for path in Path(folder).iterdir()])
for folder in ("/opt/venv", "/etc", "/usr"):
    print(folder, "can be written:", os.access(folder, os.W_OK))
Path("written").write_text("by the step")
"""


def engine(name: str) -> str:
    """The reference of the image `cpu` in this engine; skipped where the engine or the stand-in base is missing."""
    if not os.environ.get(images.STANDIN):
        pytest.skip(f"{images.STANDIN} names no base image (.ci/services makes one; it needs root)")
    if not shutil.which(name) or subprocess.run([name, "info"], capture_output=True).returncode:
        pytest.skip(f"{name} is not at work on this machine")
    return images.required_image("cpu")[0]


@pytest.fixture(scope="session")
def image() -> str:
    """The image, built."""
    reference = engine("docker")
    built = subprocess.run(
        ["python", ROOT / "docker/images.py", "cpu"], env=os.environ | SECRETS, capture_output=True, text=True
    )
    assert built.returncode == 0, built.stderr[-3000:]
    return reference


@pytest.fixture(scope="session")
def contained(image: str, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The short experiment, all of it in containers, run by a user who is not root."""
    project = new_project(tmp_path_factory.mktemp("contained"), ONE_RUN)
    project.environment |= {
        **SECRETS, "GRPO_COT_ENGINE": "docker", "HOME": str(project.folder), "DVC_SITE_CACHE_DIR": "/tmp/contained-dvc"
    }  # fmt: skip
    temporary = Path(tempfile.gettempdir())
    for folder in (project.folder, *project.folder.parents):
        if folder.is_relative_to(temporary) and folder != temporary:
            folder.chmod(0o755)
    use_systems_python(project)
    subprocess.run(["chown", "-R", f"{USER.pw_uid}:{USER.pw_gid}", project.folder], check=True)
    as_user(project, "repro")
    return project


def as_user(project: Project, *command: str) -> str:
    """What dvc says to a user who is not root, but may use Docker."""
    group = Path("/var/run/docker.sock").stat().st_gid
    return project.run(
        "setpriv",
        f"--reuid={USER.pw_uid}",
        f"--regid={USER.pw_gid}",
        f"--groups={group}",
        "python",
        "-m",
        "dvc",
        *command,
    )


def test_every_step_runs_in_its_image(contained: Project, image: str) -> None:
    identifier = subprocess.run(
        ["docker", "image", "inspect", "--format", "{{.Id}}", image], capture_output=True, text=True, check=True
    ).stdout.strip()
    records = {
        path: json.loads(path.read_text()) for path in contained.folder.rglob("*.json") if "record" in path.parts
    }
    assert {record["step"] for record in records.values()} == {
        "download", "base", "prepare", "audit", "train", "check", "evaluate", "grade", "merge", "publish", "report",
        "compare",
    }  # fmt: skip
    for path, record in records.items():
        assert (record["engine"], record["image"], f"sha256:{record['image_id']}") == ("docker", image, identifier), (
            path
        )


def test_what_the_steps_wrote_belongs_to_the_caller(contained: Project) -> None:
    for folder in ("data", "models", "runs", "published", "comparisons", "record", ".cache"):
        for path in (contained.folder / folder, *(contained.folder / folder).rglob("*")):
            assert path.lstat().st_uid == USER.pw_uid, path


def test_a_second_run_in_containers_does_nothing(contained: Project) -> None:
    assert "Running stage" not in as_user(contained, "repro")
    assert "up to date" in as_user(contained, "status")


def test_a_container_writes_what_the_host_writes(contained: Project, finished: Project) -> None:
    inside, outside = outputs_in_lock(contained.folder), outputs_in_lock(finished.folder)
    inside = {name: stage for name, stage in inside.items() if not name.startswith("compare")}
    assert len(inside) == 11
    assert inside == {name: outside[name] for name in inside}


def test_no_secret_is_in_the_image_or_in_what_the_steps_wrote(contained: Project, image: str) -> None:
    for question in (["history", "--no-trunc", image], ["image", "inspect", image]):
        said = subprocess.run(["docker", *question], capture_output=True, text=True, check=True).stdout
        assert "python3" in said or "tini" in said
        assert "planted-" not in said
    written = [path for path in contained.folder.rglob("*") if path.is_file() and ".venv" not in path.parts]
    assert len(written) > 100
    for path in written:
        if path.suffix != ".py":
            assert b"planted-" not in path.read_bytes(), path


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A clone in which steps are started by hand, by a user whose engines and shell know a proxy with a password."""
    made = new_project(tmp_path / "clone", ONE_RUN)
    proxy = "http://user:planted-proxy-password@127.0.0.1:1"
    (tmp_path / "docker").mkdir()
    (tmp_path / "docker/config.json").write_text(json.dumps({"proxies": {"default": {"httpProxy": proxy}}}))
    made.environment |= {
        **SECRETS, "GRPO_COT_ENGINE": "docker", "DVC_STAGE": "grade@short-a", "DOCKER_CONFIG": str(tmp_path / "docker"),
        "HTTPS_PROXY": proxy, "PGPASSWORD": "planted-password",
    }  # fmt: skip
    return made


@pytest.fixture
def port() -> Iterator[int]:
    """A server on this machine."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_address[1]
    server.shutdown()


def probe(project: Project, step: str, port: int) -> str:
    (project.folder / f"scripts/{step}.py").write_text(PROBE)
    (project.folder / ".dvc/config.local").write_text("['remote \"x\"']\n    url = /planted-remote-password\n")
    (project.folder / ".git/token").write_text("planted-git-token")
    said = project.run("docker/run", step, "--image", "cpu", str(port))
    (project.folder / "written").unlink()
    return said


def test_a_step_has_no_network_no_token_and_a_read_only_system(image: str, project: Project, port: int) -> None:
    said = probe(project, "grade", port)
    assert "no connection" in said
    assert "planted-" not in said and "hidden: []" in said
    assert "can be written: True" not in said


def test_publish_has_the_network_and_the_hubs_token_alone(image: str, project: Project, port: int) -> None:
    said = probe(project, "publish", port)
    assert "connected" in said
    assert SECRETS["HF_TOKEN"] in said
    assert SECRETS["WANDB_API_KEY"] not in said and SECRETS["AWS_SECRET_ACCESS_KEY"] not in said


def test_on_the_host_a_step_sees_no_token_either(project: Project, port: int) -> None:
    project.environment["GRPO_COT_ENGINE"] = "host"
    assert "planted-" not in probe(project, "grade", port).replace("planted-git-token", "")
    assert SECRETS["HF_TOKEN"] in probe(project, "publish", port)


def test_on_the_host_training_with_a_dashboard_does_not_see_the_hubs_login(project: Project, port: int) -> None:
    project.environment["GRPO_COT_ENGINE"] = "host"
    project.environment.pop("WANDB_MODE", None)
    project.edit("experiments/short.yaml", "report_to: none", "report_to: wandb")
    (project.folder / "scripts/train.py").write_text("import os\nprint(dict(os.environ))")
    said = project.run("docker/run", "train", "--image", "cpu", "--recipe", "experiments/short.yaml")
    assert SECRETS["WANDB_API_KEY"] in said and SECRETS["HF_TOKEN"] not in said
    assert "'HF_TOKEN_PATH': '/dev/null'" in said


def test_a_published_image_is_named_by_its_digest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(images.STANDIN, raising=False)
    published = "example.org/grpo-cot@sha256:" + "0" * 64
    described = read_yaml(images.IMAGES)
    monkeypatch.setattr(images, "IMAGES", tmp_path / "images.yaml")
    described["cpu"]["published"] = published
    images.IMAGES.write_text(json.dumps(described))
    assert images.required_image("cpu") == (published, described["cpu"]["key"])


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ("report_to: wandb", (True, {"WANDB_API_KEY"})),
        ("report_to: none", (False, set())),
        ("use_vllm: true\n      vllm_mode: server\n      report_to: none", (True, set())),
    ],
)  # fmt: skip
def test_train_has_the_network_only_where_its_recipe_names_a_server(
    tmp_path: Path, settings: str, expected: tuple[bool, set[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WANDB_MODE", raising=False)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text((ROOT / "tests/pipeline/short.yaml").read_text().replace("report_to: none", settings))
    assert launch.network_and_tokens("train", ["--recipe", str(recipe)]) == expected


def test_online_wandb_is_not_used_where_it_is_switched_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text((ROOT / "tests/pipeline/short.yaml").read_text().replace("report_to: none", "report_to: wandb"))
    assert launch.network_and_tokens("train", ["--recipe", str(recipe)]) == (False, set())


def refusal(project: Project, *arguments: str) -> str:
    said = project.run("docker/run", *(arguments or ("grade", "--image", "cpu")), fails=True).strip()
    assert len(said.splitlines()) == 1, said
    return said


def test_a_changed_lock_needs_a_new_image(image: str, project: Project) -> None:
    with (project.folder / "locks/cpu.txt").open("a") as lock:
        lock.write("# another lock\n")
    assert "run `make images`" in refusal(project)
    project.run("python", "docker/images.py", "--keys-only")
    said = refusal(project)
    assert "docker has no image grpo-cot:cpu-" in said and "make images IMAGES=cpu" in said
    missing = said.split("no image ")[1].split(";")[0]
    subprocess.run(["docker", "tag", image, missing], check=True)
    try:
        assert f"was made from {image.split('-')[-1]}" in refusal(project)
    finally:
        subprocess.run(["docker", "rmi", missing], check=True, capture_output=True)


def test_a_stand_in_is_taken_only_by_the_tests_setting(image: str, project: Project) -> None:
    del project.environment[images.STANDIN]
    key = read_yaml(images.IMAGES)["cpu"]["key"]
    assert f"has no image grpo-cot:cpu-{key}" in refusal(project)


def test_a_missing_engine_daemon_or_gpu_is_one_sentence(project: Project) -> None:
    project.environment["GRPO_COT_ENGINE"] = "dokcer"
    assert "expected host, docker, podman or apptainer" in refusal(project)
    project.environment["GRPO_COT_ENGINE"] = "apptainer"
    assert "make images" in refusal(project) or "apptainer is not installed" in refusal(project)
    project.environment["GRPO_COT_ENGINE"] = "docker"
    recipe = ("--recipe", "experiments/short.yaml")
    if not launch.gpu_present():
        assert "needs a GPU" in refusal(project, "train", "--image", "cuda", *recipe)
    assert "there is no step 'trian'" in refusal(project, "trian", "--image", "cpu")
    if shutil.which("docker"):
        project.environment["DOCKER_HOST"] = "unix:///nowhere.sock"
        assert "docker does not answer" in refusal(project)
    project.environment["PATH"] = "/usr/sbin"
    shell = shutil.which("dash") or "/bin/sh"
    (project.folder / "bin").mkdir()
    for tool in (shell, shutil.which("dirname") or ""):
        (project.folder / "bin" / Path(tool).name.replace("dash", "sh")).symlink_to(tool)
    project.environment["PATH"] = str(project.folder / "bin")
    assert "docker is not installed" in refusal(project)


def test_beside_a_live_container_of_its_name_a_step_does_not_start(
    image: str, project: Project, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "ROOT", project.folder)
    monkeypatch.setenv("DVC_STAGE", "grade@short-a")
    name = launch.container_name("grade", [])
    subprocess.run(["docker", "create", "--name", name, image, "true"], check=True, capture_output=True)
    assert "user: 0" in probe(project, "grade", port)  # the dead one made room
    subprocess.run(
        ["docker", "run", "--detach", "--rm", "--network", "none", "--name", name, image, "sleep", "60"],
        check=True, capture_output=True,
    )  # fmt: skip
    try:
        said = refusal(project)
        assert f"{name} of an earlier run is still at work" in said and "make recover" in said
    finally:
        subprocess.run(["docker", "rm", "--force", name], check=True, capture_output=True)


@pytest.mark.prove
def test_podman_runs_a_step(image: str, project: Project, port: int, tmp_path: Path) -> None:
    reference = engine("podman")
    # Podman's usual runtime refuses control groups of the old kind, and some machines do not let limits be raised.
    settings = tmp_path / "containers.conf"
    limits = '["nofile=1024:1024", "nproc=4096:4096"]'
    settings.write_text(f'[engine]\nruntime = "runc"\n[containers]\ndefault_ulimits = {limits}\n')
    project.environment |= {"GRPO_COT_ENGINE": "podman", "CONTAINERS_CONF": str(settings)}
    if subprocess.run(["podman", "image", "exists", reference]).returncode:
        subprocess.run(f"docker save {image} | podman load", shell=True, check=True, capture_output=True)
    said = probe(project, "grade", port)
    assert "no connection" in said and "planted-" not in said and "can be written: True" not in said


def test_the_images_keys_are_those_of_the_files() -> None:
    for name in images.LOCKS:
        assert read_yaml(images.IMAGES)[name]["key"] == images.image_key(
            name, read_yaml(images.IMAGES)[name]["base"]
        ), f"run `make images`: the key of {name} is stale"


def test_an_images_key_changes_with_each_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in ("docker", "locks"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("wheels"))
    monkeypatch.setattr(images, "ROOT", tmp_path)
    monkeypatch.setattr(images, "DOCKERFILE", tmp_path / "docker/Dockerfile")
    keys = [images.image_key("cpu", "base"), images.image_key("cpu", "other"), images.image_key("cuda", "base")]
    for file in ("docker/Dockerfile", "locks/cpu.txt", "locks/torch-cpu.txt"):
        (tmp_path / file).write_text((tmp_path / file).read_text() + "#\n")
        keys.append(images.image_key("cpu", "base"))
    assert len(set(keys)) == 6


IMPORTS = """\
import importlib
for name in "torch trl peft transformers bitsandbytes datasets accelerate deepspeed vllm unsloth".split():
    try:
        importlib.import_module(name)
        print(name, "imports")
    except Exception as error:
        print(name, "fails:", type(error).__name__, error)
"""


def test_the_cuda_image_holds_the_whole_set_and_fails_only_for_want_of_a_device(project: Project) -> None:
    engine("docker")
    reference = images.required_image("cuda")[0]
    if subprocess.run(["docker", "image", "inspect", reference], capture_output=True).returncode:
        pytest.skip(f"{reference} is not built here (10 GB; `make images IMAGES=cuda`)")
    if launch.gpu_present():
        pytest.skip("there is a GPU, and this is about what happens without one")
    (project.folder / "imports.py").write_text(IMPORTS)
    inside = (
        "docker", "run", "--rm", "--network", "none", "--read-only", "--tmpfs", "/tmp:exec", "--env", "HOME=/tmp",
        "--env", "PYTHONPATH=src", "--volume", f"{project.folder}:/checkout", "--workdir", "/checkout", reference,
    )  # fmt: skip
    said = project.run(*inside, "python", "imports.py")
    for name in ("torch", "trl", "peft", "transformers", "bitsandbytes", "datasets", "accelerate", "deepspeed", "vllm"):
        assert f"\n{name} imports\n" in f"\n{said}", said[-3000:]
    assert "unsloth fails: NotImplementedError Unsloth cannot find any torch accelerator? You need a GPU." in said
    assert "are valid" in project.run(*inside, "python", "workflow/validate.py")
    # Unsloth's own trainers are compared with recipes where Unsloth is; the image holds no pytest.
    packages = Path(pytest.__file__).parent.parent
    names = ("pytest", "_pytest", "pluggy", "iniconfig", "py.py")
    mounts = [part for name in names for part in ("--volume", f"{packages / name}:/pytest/{name}:ro")]
    said = project.run(
        *inside[:-1], "--env", "PYTHONPATH=/pytest", "--volume", f"{ROOT}:/tests:ro", "--workdir", "/tests", *mounts,
        reference, "python", "-m", "pytest", "-p", "no:cacheprovider", "-q", "tests/training/test_unsloth.py",
    )  # fmt: skip
    assert " passed" in said and "skipped" not in said and "failed" not in said
