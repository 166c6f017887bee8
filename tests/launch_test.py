"""The templates of launch/ and the commands of their pages: syntax, and that what they name is there."""

import os
import re
import subprocess
from pathlib import Path

import pytest
import yaml

from contextjax.sharding.processes import COORDINATOR, PROCESS, PROCESSES

ROOT = Path(__file__).parent.parent
SCRIPTS = sorted((ROOT / "launch").glob("*.sh"))
DEADLINE = 60  # seconds that a script may take
MANIFESTS = sorted((ROOT / "launch").glob("*.yaml"))
TEXTS = [*sorted((ROOT / "docs" / "guides" / "launch").glob("*.md")), *sorted((ROOT / "launch").iterdir())]


def command(script: str, *arguments: str, tools: dict[str, str], folder: Path, **variables: str) -> str:
    """Returns what a script prints when the tools it calls are these."""
    for name, code in tools.items():
        (folder / name).write_text(f"#!/bin/bash\n{code}\n")
        (folder / name).chmod(0o755)
    environment = {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}", **variables}
    done = subprocess.run([str(ROOT / "launch" / script), *arguments], cwd=ROOT, env=environment, text=True,
                          capture_output=True, check=True, timeout=DEADLINE)  # fmt: skip
    return done.stdout


FLAGS = ["--config=configs/context_cir.py:B32", "--workdir=a folder"]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_are_bash_and_may_be_run(script):
    assert subprocess.run(["bash", "-n", str(script)], check=False, timeout=DEADLINE).returncode == 0
    assert os.access(script, os.X_OK) and "set -euo pipefail" in script.read_text()


def test_slurm_starts_the_command_with_its_flags(tmp_path):
    said = command("slurm.sh", *FLAGS, tools={"srun": 'printf "%s\\n" "$@"'}, folder=tmp_path, PYTHON="python3",
                   SLURM_SUBMIT_DIR=str(ROOT))  # fmt: skip
    assert said.splitlines() == ["--kill-on-bad-exit=1", "--label", "python3", "-m", "experiments.train", *FLAGS]


def test_the_gpu_box_starts_a_process_a_gpu(tmp_path):
    tools = {"nvidia-smi": 'printf "GPU 0\\nGPU 1\\nGPU 2\\n"', "shown": 'printf "%s\\n" "$@"'}
    said = command("gpu_box.sh", *FLAGS, tools=tools, folder=tmp_path, PYTHON="shown")
    assert said.splitlines() == [
        "-m",
        "experiments.launch",
        "--processes=3",
        "--gpus",
        "--",
        "experiments.train",
        *FLAGS,
    ]
    said = command("gpu_box.sh", *FLAGS, tools=tools, folder=tmp_path, PYTHON="shown", GPUS="2")
    assert "--processes=2" in said.splitlines()


def test_a_tpu_vm_gets_the_code_and_the_command_on_every_host(tmp_path):
    tools = {"gcloud": 'printf "%s\\n" "$@"'}
    said = command("tpu_vm.sh", *FLAGS, tools=tools, folder=tmp_path, TPU="pod", ZONE="here")
    assert said.count("--worker=all") == 2 and said.count("pod") == 2
    sent = next(line for line in said.splitlines() if line.startswith("--command="))
    (tmp_path / "x").write_text(sent.removeprefix("--command=").split(" && exec ")[1])
    told = subprocess.run(
        ["bash", "-c", f"printf '%s\\n' {(tmp_path / 'x').read_text()}"],
        capture_output=True,
        text=True,
        timeout=DEADLINE,
    )
    assert told.stdout.splitlines() == [".venv/bin/python", "-m", "experiments.train", *FLAGS]


@pytest.mark.parametrize("manifest", MANIFESTS, ids=lambda path: path.name)
def test_a_jobset_starts_as_many_processes_as_it_says(manifest):
    found = yaml.safe_load(manifest.read_text())
    assert (found["apiVersion"], found["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
    (job,) = found["spec"]["replicatedJobs"]
    spec, name = job["template"]["spec"], found["metadata"]["name"]
    assert spec["completionMode"] == "Indexed" and spec["parallelism"] == spec["completions"] > 1
    pod = spec["template"]["spec"]
    (container,) = pod["containers"]
    assert container["args"][0] == "experiments.train"
    assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}
    variables = {variable["name"]: variable for variable in container.get("env", [])}
    if "tpu" in manifest.name:
        chips = [int(size) for size in pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"].split("x")]
        assert spec["parallelism"] * container["resources"]["limits"]["google.com/tpu"] == chips[0] * chips[1]
        assert not variables  # JAX reads GKE's own
    else:
        assert set(variables) == {COORDINATOR, PROCESSES, PROCESS}
        assert variables[PROCESSES]["value"] == str(spec["parallelism"])
        assert variables[COORDINATOR]["value"].startswith(f"{name}-{job['name']}-0-0.{name}:")
        assert "job-completion-index" in variables[PROCESS]["valueFrom"]["fieldRef"]["fieldPath"]


@pytest.mark.parametrize("text", TEXTS, ids=lambda path: path.name)
def test_commands_recipes_flags_and_files_that_are_named_are_there(text):
    said = text.read_text()
    for module in re.findall(r"\bexperiments\.([a-z_]+)\b", said):
        assert (ROOT / "experiments" / f"{module}.py").exists(), module
    for recipe in re.findall(r"configs/\w+\.py", said):
        assert (ROOT / recipe).exists(), recipe
    for path in re.findall(r"(?<![\w/.])launch/[\w.]+\w", said):
        assert (ROOT / path).exists(), path
    for link in re.findall(r"\]\(([\w./]+)\)", said):
        assert (text.parent / link).exists(), link
    commands = [ROOT / "experiments" / f"{name}.py" for name in ("train", "evaluate", "launch", "serve")]
    code = "".join(path.read_text() for path in (*commands, ROOT / "experiments" / "shared" / "cli.py"))
    for flag in re.findall(r"`--(\w+)`", said):
        assert f'"{flag}"' in code or flag in ("requeue",), flag


@pytest.mark.parametrize(("file", "user"), [("Dockerfile", "trainer"), ("Dockerfile.serve", "server")])
def test_the_images_are_made_of_what_is_there_and_need_no_rights(file, user):
    lines = (ROOT / "launch" / file).read_text().splitlines()
    for line in lines:
        if line.startswith("COPY ") and "--from" not in line:
            for name in line.split()[1:-1]:
                assert (ROOT / name).exists(), name
    extras = set(re.findall(r'"(\w+)": (?:\[|SERVE|TRAIN)', (ROOT / "setup.py").read_text()))
    named = {extra for line in lines for group in re.findall(r"EXTRAS=([\w,]+)", line) for extra in group.split(",")}
    assert named <= extras
    assert f"USER {user}" in lines
