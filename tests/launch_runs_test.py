"""The templates of launch/ with the real command: two processes of four simulated devices, as a scheduler starts them.

What stands in for a scheduler sets its variables, answers as its metadata server does, and starts the processes; the
scripts, the manifests' arguments, the image's files and entry point are the real ones. In each, one process gets
SIGTERM after its second step, the same command resumes, and the run is exported.
"""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from contextjax.sharding.processes import PROCESS, PROCESSES
from contextjax.training.metrics_log import read_metrics
from tests.commands import environment, interpreter
from tests.conftest import write_pictograms
from tests.sharding.processes_test import free_port

ROOT = Path(__file__).parent.parent
LAUNCH = ROOT / "launch"
DEADLINE = 1800  # seconds; a busy machine takes long
# In place of libtpu: it says that the machine has four chips, by which JAX asks GKE's variables or a VM's metadata.
LIBTPU = """
from jax._src import hardware_utils
hardware_utils.num_available_tpu_chips_and_device_id = lambda: (4, None)
def get_library_path():
    return "no/such/library"
"""
SRUN = """
while [[ "$1" == --* ]]; do shift; done
for task in 0 1; do
  SLURM_PROCID=$task SLURM_LOCALID=$task "$@" > >(sed "s/^/$task: /") 2>&1 & tasks+=($!)
done
for task in "${tasks[@]}"; do wait "$task" || code=$?; done
exit "${code:-0}"
"""
# Two hosts, each with a folder and a metadata server of its own.
GCLOUD = """
if [[ "$4" == scp ]]; then
  for host in 0 1; do mkdir -p "$HOSTS/$host" && cp "$5" "$HOSTS/$host/${6#*:}"; done
else
  for argument in "$@"; do [[ "$argument" == --command=* ]] && command="${argument#--command=}"; done
  for host in 0 1; do
    address="METADATA_$host"
    (cd "$HOSTS/$host" && GCE_METADATA_IP="${!address}" exec bash -c "$command") & hosts+=($!)
  done
  for host in "${hosts[@]}"; do wait "$host" || code=$?; done
fi
exit "${code:-0}"
"""
# In place of a host's interpreter and pip: the environment of these tests is there already.
VENV = """
mkdir -p .venv/bin
printf '#!/bin/bash\\nexec "%s" "$@"\\n' "$REAL_PYTHON" > .venv/bin/python
printf '#!/bin/bash\\n' > .venv/bin/pip
chmod +x .venv/bin/*
"""


RECIPE = Path(__file__).parent / "told_recipe.py"


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return write_pictograms(tmp_path_factory.mktemp("launch") / "cirr", train_groups=4)


def training(data: Path, workdir: Path) -> list[str]:
    """Flags of experiments.train."""
    return [f"--config={RECIPE}", f"--config.data.folder={data}", f"--workdir={workdir}"]


def tools(folder: Path, **code: str) -> dict[str, str]:
    """Writes commands that stand in for a scheduler's; returns the variables by which they are found."""
    folder.mkdir(exist_ok=True)
    for name, lines in code.items():
        path = folder / name.replace("_", "-")
        path.write_text(f"#!/bin/bash\n{lines}\n")
        path.chmod(0o755)
    return {"PATH": f"{folder}:{os.environ['PATH']}"}


def run(commands: list[list[str]], variables: list[dict[str, str]], *, cwd: Path = ROOT) -> tuple[list[int], str]:
    """Runs commands at the same time, each with four devices; returns their exit codes and all that they said."""
    processes = []
    for command, own in zip(commands, variables, strict=True):
        # XLA's CPU backend runs collectives side by side: with few threads those of two processes wait for each other.
        env = environment(devices=4, PJRT_NPROC="16", **own)
        if "TPU_SKIP_MDS_QUERY" not in own:  # JAX has set it in this process, which has no chips
            env.pop("TPU_SKIP_MDS_QUERY", None)
        if cwd != ROOT:
            env.pop("PYTHONPATH", None)  # the code is that of the folder
        options: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        processes.append(subprocess.Popen(command, cwd=cwd, env=env, start_new_session=True, **options))
    try:
        said = [process.communicate(timeout=DEADLINE)[0] for process in processes]
    finally:
        for process in processes:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    return [process.returncode for process in processes], "".join(said)


def trained_and_exported(
    commands: list[list[str]], variables: list[dict[str, str]], workdir: Path, *, cwd: Path = ROOT
) -> Path:
    """Runs the commands with a SIGTERM to the second process, then again, then exports; returns the export."""
    commands = [[*command, "--process_timeout=600"] for command in commands]  # this machine may be busy
    codes, said = run(commands, [own | {"TOLD": "1"} for own in variables], cwd=cwd)
    assert set(codes) == {143} and "Asked to stop after step 4, which is saved" in said, (codes, said)
    codes, said = run(commands, variables, cwd=cwd)
    assert set(codes) == {0} and "step 6/6" in said, (codes, said)
    assert [line["step"] for line in read_metrics(workdir) if "loss" in line] == [1, 2, 3, 4, 5, 6]
    mesh = json.loads((workdir / "config.json").read_text())["mesh"]
    assert mesh == "fsdp:-1"
    target = workdir.parent / "export"
    done = interpreter("export", f"--workdir={workdir}", f"--target={target}", "--format=safetensors")
    assert done.returncode == 0 and list(target.glob("*.safetensors")), done.stderr
    return target


@pytest.mark.long
def test_a_gpu_box(data, tmp_path):
    found = tools(tmp_path / "tools", nvidia_smi='printf "GPU 0\\nGPU 1\\n"')
    workdir = tmp_path / "run"
    command = [str(LAUNCH / "gpu_box.sh"), *training(data, workdir)]
    trained_and_exported([command], [{**found, "PYTHON": sys.executable}], workdir)


@pytest.mark.long
def test_slurm(data, tmp_path):
    workdir = tmp_path / "run"
    variables = {
        **tools(tmp_path / "tools", srun=SRUN), "PYTHON": sys.executable, "SLURM_SUBMIT_DIR": str(ROOT),
        "SLURM_JOB_ID": str(free_port()), "SLURM_NTASKS": "2", "SLURM_STEP_NUM_TASKS": "2",
        "SLURM_STEP_NODELIST": "localhost", "SLURM_STEP_NUM_NODES": "1", "SLURM_CPUS_PER_TASK": "8",
    }  # fmt: skip
    command = [str(LAUNCH / "slurm.sh"), *training(data, workdir)]
    trained_and_exported([command], [variables], workdir)


@contextlib.contextmanager
def metadata(host: int) -> Iterator[str]:
    """A metadata server as a TPU VM has it; yields its address."""
    values = {"agent-worker-number": str(host), "worker-network-endpoints": "localhost,localhost", "tpu-env": ""}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            value = values.get(self.path.rpartition("/")[2])
            self.send_response(404 if value is None else 200)
            self.end_headers()
            self.wfile.write((value or "").encode())

        def log_message(self, format, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def with_chips(folder: Path) -> dict[str, str]:
    """Writes what stands in for libtpu; returns the variables by which it is found."""
    (folder / "libtpu").mkdir(parents=True)
    (folder / "libtpu" / "__init__.py").write_text(LIBTPU)
    return {"PYTHONPATH": str(folder), "JAX_COORDINATOR_PORT": str(free_port())}


@pytest.mark.slow
def test_tpu_vms(data, tmp_path):
    """The hosts run the committed code, out of the archive that the script sends."""
    workdir, hosts = tmp_path / "run", tmp_path / "hosts"
    with metadata(0) as first, metadata(1) as second:
        variables = {
            **tools(tmp_path / "tools", gcloud=GCLOUD, venv_python=VENV), **with_chips(tmp_path / "chips"),
            "TPU": "pod", "ZONE": "here", "HOSTS": str(hosts), "REMOTE_PYTHON": "venv-python",
            "REAL_PYTHON": sys.executable, "METADATA_0": first, "METADATA_1": second,
        }  # fmt: skip
        command = [str(LAUNCH / "tpu_vm.sh"), *training(data, workdir)]
        trained_and_exported([command], [variables], workdir)
    assert (hosts / "1" / "contextjax" / "experiments" / "train.py").exists()


def image(dockerfile: str, folder: Path) -> tuple[Path, list[str], list[str]]:
    """Copies what an image copies; returns its folder, entry point and command."""
    text = (LAUNCH / dockerfile).read_text()
    folder.mkdir()
    for source in re.findall(r"^COPY (\w+) \1$", text, re.MULTILINE):
        subprocess.run(["cp", "--recursive", str(ROOT / source), str(folder / source)], check=True)
    entry, command = (json.loads(re.search(rf"^{name} (\[.*\])$", text, re.MULTILINE)[1])  # type: ignore[index]
                      for name in ("ENTRYPOINT", "CMD"))  # fmt: skip
    assert entry[:2] == ["python", "-m"]
    return folder, [sys.executable, *entry[1:]], command


def container_of(manifest: str) -> dict[str, Any]:
    jobs = yaml.safe_load((LAUNCH / manifest).read_text())["spec"]["replicatedJobs"]
    return jobs[0]["template"]["spec"]["template"]["spec"]["containers"][0]


def with_values(arguments: list[str], **values: Any) -> list[str]:
    """Returns a manifest's arguments with others of its flags' values; every flag has to be given one."""
    changed = []
    for argument in arguments:
        flag = argument.partition("=")[0]
        changed.append(f"{flag}={values.pop(flag.removeprefix('--'))}" if argument.startswith("--") else argument)
    assert not values
    return changed


@pytest.mark.slow
@pytest.mark.parametrize("manifest", ["jobset_gpu.yaml", "jobset_tpu.yaml"])
def test_a_jobset_in_the_image(manifest, data, tmp_path):
    """Two pods, whose names stand for this machine, run the image's files by its entry point."""
    folder, entry, _ = image("Dockerfile", tmp_path / "image")
    container, workdir, port = container_of(manifest), tmp_path / "run", free_port()
    flags = {"config": RECIPE, "config.data.folder": data, "workdir": workdir}
    command = [*entry, *with_values(container["args"], **flags)]
    pods = []
    for pod in range(2):
        if "tpu" in manifest:  # by GKE
            own = {"TPU_WORKER_ID": str(pod), "TPU_WORKER_HOSTNAMES": "localhost,localhost",
                   "TPU_SKIP_MDS_QUERY": "true", "MEGASCALE_NUM_SLICES": "1", "MEGASCALE_SLICE_ID": "0",
                   "MEGASCALE_COORDINATOR_ADDRESS": "localhost"}  # fmt: skip
        else:
            own = {}
            for variable in container["env"]:
                value = variable.get("value", str(pod))  # else by the pod's index
                own[variable["name"]] = re.sub(r"^contextjax-workers-0-0\.contextjax:\d+$", f"127.0.0.1:{port}", value)
            assert own[PROCESSES] == "2" and own[PROCESS] == str(pod)
        pods.append(own)
    if "tpu" in manifest:
        chips = with_chips(tmp_path / "chips")
        (folder / "libtpu").symlink_to(tmp_path / "chips" / "libtpu")  # installed in the image
        pods = [{**pod, "JAX_COORDINATOR_PORT": chips["JAX_COORDINATOR_PORT"]} for pod in pods]
    trained_and_exported([command, command], pods, workdir, cwd=folder)


@pytest.mark.slow
def test_the_serving_image(tiny_run, tmp_path, pictograms):
    """The image's files serve an export, answer on /health and end by SIGTERM."""
    system = tmp_path / "system"
    done = interpreter("export", f"--workdir={tiny_run}", f"--target={system}", "--format=safetensors")
    assert done.returncode == 0, done.stderr
    folder, entry, command = image("Dockerfile.serve", tmp_path / "image")
    assert command[0] == "--source=/srv/system" and "--port=8000" in entry
    port, gallery = free_port(), pictograms / "img_raw" / "dev"
    line = [*entry, f"--source={system}", f"--gallery={gallery}", f"--port={port}", "--host=127.0.0.1"]
    env = environment(CONTEXTJAX_COMPILE_CACHE=str(tmp_path / "compiled"))
    env.pop("PYTHONPATH", None)
    with subprocess.Popen(line, cwd=folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as server:
        try:
            assert answer(f"http://127.0.0.1:{port}/health", server)
            server.terminate()
            assert server.wait(timeout=60) in (0, 143)
        finally:
            server.kill()


def answer(url: str, server: subprocess.Popen) -> bytes:
    """Returns what a server says as soon as it says something."""
    until = time.monotonic() + DEADLINE
    while time.monotonic() < until:
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=10) as response:
            return response.read()
        assert server.poll() is None and server.stdout, server.stdout and server.stdout.read()
        time.sleep(0.2)
    raise AssertionError(f"no answer from {url}")
