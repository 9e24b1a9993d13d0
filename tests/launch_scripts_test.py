# Copyright 2026 The rfrec Authors.
# SPDX-License-Identifier: Apache-2.0
"""The shell scripts: linted, and run with stand-ins for SLURM and Google Cloud."""

import json
import os
import pathlib
import shutil
import signal
import stat
import subprocess
import sys
import time

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
LAUNCH = ROOT / "launch"
HOSTS = LAUNCH / "hosts"
SCRIPTS = [*sorted(LAUNCH.rglob("*.s*")), ROOT / ".ci" / "run"]
COUNT = "import jax; print('devices', jax.device_count())"
JOINED = """
import sys, jax
flags = dict(arg[2:].split("=", 1) for arg in sys.argv[1:])
jax.distributed.initialize(
    flags["coordinator_address"], int(flags["num_processes"]), int(flags["process_id"]))
print("sees", jax.process_count(), jax.device_count(), jax.local_device_count())
"""


def _run(*args, env=None, timeout=120):
    return subprocess.run(
        [str(arg) for arg in args],
        env={**os.environ, **(env or {})},
        capture_output=True,
        text=True,
        timeout=timeout,
    )


def _stand_in(folder: pathlib.Path, name: str, body: str) -> dict[str, str]:
    """Put a program first on the PATH and return the environment for it."""
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(body)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return {"PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"}


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_a_script_parses_and_is_executable(path):
    done = _run("bash", "-n", path)
    assert (done.returncode, done.stderr) == (0, "")
    assert path.suffix == ".sbatch" or os.access(path, os.X_OK)


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_shellcheck_finds_nothing(path):
    beside = pathlib.Path(sys.executable).parent / "shellcheck"
    shellcheck = shutil.which("shellcheck") or shutil.which(beside)
    if shellcheck is None:
        pytest.skip("shellcheck comes with rfrec[dev]")
    assert _run(shellcheck, path).stdout == ""


@pytest.mark.parametrize("path", sorted(LAUNCH.rglob("*.sh")), ids=lambda p: p.name)
def test_help_prints_the_usage_and_a_mistake_prints_one_line(path):
    helped, wrong = _run(path, "-h"), _run(path)
    assert helped.returncode == 0
    assert helped.stdout.startswith("usage: ") and helped.stderr == ""
    assert wrong.returncode == 2
    assert wrong.stderr.startswith(f"{path.name}: ") and wrong.stderr.count("\n") == 1


def test_virtual_devices_win_over_an_earlier_number():
    env = {"XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    done = _run(HOSTS / "virtual_devices.sh", 3, sys.executable, "-c", COUNT, env=env)
    assert done.stdout == "devices 3\n", done.stderr


@pytest.mark.parametrize("number", ["0", "x", "-1"])
def test_virtual_devices_names_a_wrong_number(number):
    done = _run(HOSTS / "virtual_devices.sh", number, "true")
    assert done.returncode == 2
    assert f"must be at least 1, not '{number}'" in done.stderr


@pytest.mark.multidevice
def test_processes_join_over_loopback():
    done = _run(HOSTS / "processes.sh", 2, 3, sys.executable, "-c", JOINED)
    assert done.returncode == 0, done.stderr
    assert sorted(line for line in done.stdout.splitlines() if "sees" in line) == [
        "[0] sees 2 6 3",
        "[1] sees 2 6 3",
    ]


def test_a_failing_process_ends_the_others_and_gives_its_status():
    code = "import sys, time; time.sleep(60 * ('--process_id=1' not in sys.argv))"
    started = time.monotonic()
    code += "; sys.exit(3)"
    done = _run(HOSTS / "processes.sh", 3, 1, sys.executable, "-c", code)
    assert done.returncode == 3
    assert "process 1 ended with status 3" in done.stderr
    assert time.monotonic() - started < 20


def test_a_signal_reaches_every_process(tmp_path):
    code = (
        "import pathlib, signal, sys, time\n"
        "mine = pathlib.Path(sys.argv[1], sys.argv[-1])\n"
        "def stop(*_):\n    mine.write_text('saved')\n    sys.exit(0)\n"
        "signal.signal(signal.SIGTERM, stop)\n"
        "mine.write_text('started')\n"
        "time.sleep(60)\n"
    )
    command = [HOSTS / "processes.sh", "2", "1", sys.executable, "-c", code, tmp_path]
    # A shell that runs the tests in the background lets its children ignore SIGINT.
    before = signal.signal(signal.SIGINT, signal.SIG_DFL)
    parent = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    signal.signal(signal.SIGINT, before)
    files = [tmp_path / f"--process_id={i}" for i in range(2)]
    deadline = time.monotonic() + 20
    while not all(file.exists() and file.read_text() for file in files):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    parent.send_signal(signal.SIGINT)
    assert parent.wait(20) == 0
    assert [file.read_text() for file in files] == ["saved", "saved"]


SLURM = {
    "SLURM_JOB_ID": "70001",
    "SLURM_STEP_NODELIST": "gpu[07-08]",
    "SLURM_STEP_NUM_NODES": "2",
    "SLURM_NTASKS": "4",
    "SLURM_PROCID": "3",
    "SLURM_LOCALID": "1",
}
SCONTROL = (
    '#!/bin/sh\ntest "$*" = "show hostnames gpu[07-08]" && printf "gpu07\\ngpu08\\n"\n'
)
REPORT = "import os, sys; print(os.environ.get('JAX_LOCAL_DEVICE_IDS'), sys.argv[1:])"


def _slurm(tmp_path, **variables):
    env = SLURM | _stand_in(tmp_path / "bin", "scontrol", SCONTROL) | variables
    return _run(HOSTS / "slurm.sh", sys.executable, "-c", REPORT, "--x=a b", env=env)


@pytest.mark.parametrize(
    ("visible", "ids"),
    [("0,1", "1"), ("0,1,2,3", "2,3"), ("0", "0"), ("", "None")],
)
def test_slurm_passes_coordinator_rank_and_gpus(tmp_path, visible, ids):
    done = _slurm(tmp_path, CUDA_VISIBLE_DEVICES=visible)
    assert done.returncode == 0, done.stderr
    port = 61440 + 70001 % 4096
    flags = [
        "--x=a b",
        f"--coordinator_address=gpu07:{port}",
        "--num_processes=4",
        "--process_id=3",
    ]
    assert done.stdout == f"{ids} {flags}\n"


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"SLURM_PROCID": ""}, "SLURM_PROCID is not set"),
        (
            {"CUDA_VISIBLE_DEVICES": "0,1,2"},
            "3 GPUs cannot be divided evenly among 2 tasks",
        ),
        (
            {"CUDA_VISIBLE_DEVICES": "0,1", "SLURM_NTASKS": "3"},
            "3 tasks cannot be divided evenly over 2 nodes",
        ),
    ],
)
def test_slurm_names_what_does_not_fit(tmp_path, variables, message):
    done = _slurm(tmp_path, **variables)
    assert done.returncode == 2
    assert message in done.stderr


# A Google Cloud of files: `vm` holds the state of the TPU VM, `calls` the requests,
# `home` is the home of the one worker, where commands really run.
GCLOUD = f"""#!{sys.executable}
import json, os, pathlib, shutil, subprocess, sys

cloud = pathlib.Path(os.environ["FAKE_CLOUD"])
vm, home, full = cloud / "vm", cloud / "home", cloud / "full"
args = sys.argv[1:]
with open(cloud / "calls", "a") as calls:
    calls.write(json.dumps(args) + "\\n")
assert args[:2] == ["compute", "tpus"], args
verb = args[3]
if verb == "create" and full.exists():
    full.unlink()
    sys.exit("There is no more capacity in the zone")
elif verb == "create":
    home.mkdir()
    vm.write_text("READY")
elif verb == "delete":
    shutil.rmtree(home)
    vm.unlink()
elif verb == "describe" and args[2] == "queued-resources":
    print("ACTIVE")
elif not vm.exists():
    sys.exit("ERROR: NOT_FOUND: no such node")
elif verb == "describe":
    print(vm.read_text())
elif verb == "scp":
    shutil.copy(args[4], home / args[5].split(":")[1])
elif verb == "ssh":
    command = next(a[10:] for a in args if a.startswith("--command="))
    if "pip install" in command:
        (home / "rfrec").mkdir()
        command = "cd ~/rfrec && tar -xzf ~/rfrec.tar.gz"
    env = dict(os.environ, HOME=str(home))
    sys.exit(subprocess.run(["bash", "-c", command], env=env).returncode)
"""


@pytest.fixture
def cloud(tmp_path, monkeypatch):
    """Give a folder with a small checkout and a stand-in for gcloud."""
    checkout = tmp_path / "checkout"
    for name in ("rfrec", "configs", "third_party"):
        (checkout / name).mkdir(parents=True)
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        (checkout / name).touch()
    shutil.copytree(LAUNCH, checkout / "launch")
    for name, value in _stand_in(tmp_path / "bin", "gcloud", GCLOUD).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("FAKE_CLOUD", str(tmp_path))
    return tmp_path


def _tpu(cloud, *args):
    return _run(cloud / "checkout" / "launch" / "hosts" / "tpu_vm.sh", *args)


def _calls(cloud):
    return [json.loads(line) for line in (cloud / "calls").read_text().splitlines()]


def test_tpu_create_and_delete_pass_their_options_on(cloud):
    place = ["--zone=us-a", "--project=p q"]
    created = _tpu(
        cloud, "create", "t", *place, "--type=v4-8", "--version=v2", "--spot"
    )
    assert created.returncode == 0, created.stderr
    assert _tpu(cloud, "delete", "t", *place).returncode == 0
    tpu_vm = ["compute", "tpus", "tpu-vm"]
    options = ["--accelerator-type=v4-8", "--version=v2", "--spot"]
    assert _calls(cloud) == [
        [*tpu_vm, "create", "t", *options, *place],
        [*tpu_vm, "delete", "t", "--quiet", *place],
    ]


def test_tpu_queued_create_waits_until_the_resource_is_active(cloud):
    done = _tpu(cloud, "create", "t", "--queued", "--gcloud=--network=n", "--poll=0")
    assert done.returncode == 0, done.stderr
    created, described = _calls(cloud)
    assert created[2:6] == ["queued-resources", "create", "t", "--node-id=t"]
    assert created[-1] == "--network=n"
    assert described[2:5] == ["queued-resources", "describe", "t"]


def test_tpu_install_ships_the_checkout_and_runs_the_setup(cloud):
    assert _tpu(cloud, "create", "t").returncode == 0
    done = _tpu(cloud, "install", "t", "--setup=echo 'a  b' > ~/mounted")
    assert done.returncode == 0, done.stderr
    assert (cloud / "home" / "rfrec" / "launch" / "hosts" / "tpu_vm.sh").exists()
    assert (cloud / "home" / "mounted").read_text() == "a  b\n"
    assert all("--worker=all" in call for call in _calls(cloud)[1:])


def _wait_for(path):
    deadline = time.monotonic() + 20
    while not (path.exists() and path.read_text()):
        assert time.monotonic() < deadline, path
        time.sleep(0.05)
    return path.read_text()


def test_tpu_run_keeps_the_words_of_the_command_and_adds_distributed(cloud):
    _tpu(cloud, "create", "t")
    _tpu(cloud, "install", "t")
    words = ["it's", "a b", '"$HOME"', "--config.x=(1,2)", "*"]
    code = "import json, sys; open('words', 'w').write(json.dumps(sys.argv[1:]))"
    done = _tpu(cloud, "run", "t", "--", sys.executable, "-c", code, *words)
    assert done.returncode == 0, done.stderr
    words_received = json.loads(_wait_for(cloud / "home" / "rfrec" / "words"))
    assert words_received == [*words, "--distributed"]
    assert _wait_for(cloud / "home" / "rfrec" / "run.exit").startswith("0 ")


def test_tpu_run_refuses_a_second_command(cloud):
    _tpu(cloud, "create", "t")
    _tpu(cloud, "install", "t")
    sleep = ["--", "bash", "-c", "echo on; sleep 30"]
    assert _tpu(cloud, "run", "t", *sleep).returncode == 0
    second = _tpu(cloud, "run", "t", *sleep)
    os.kill(int((cloud / "home" / "rfrec" / "run.pid").read_text()), signal.SIGKILL)
    assert second.returncode == 2
    assert "a command is already running on t" in second.stderr


def test_tpu_resume_survives_lack_of_capacity_and_preemption(cloud):
    (cloud / "full").touch()
    script = cloud / "train"
    # The first start loses its machine; the second is the resumed run.
    script.write_text(
        f'cd {cloud}; echo "$@" >> starts\n'
        "if [ $(wc -l < starts) = 1 ]; then echo PREEMPTED > vm; kill -9 $$; fi\n"
    )
    done = _tpu(cloud, "resume", "t", "--poll=0.1", "--", "bash", script, "--workdir=w")
    assert done.returncode == 0, done.stderr
    assert "no more capacity" in done.stderr
    assert "t is PREEMPTED: deleting it" in done.stderr
    assert (cloud / "starts").read_text() == "--workdir=w --distributed\n" * 2
    verbs = [call[3] for call in _calls(cloud)]
    assert verbs.count("create") == 3 and verbs.count("delete") == 1


def test_tpu_resume_returns_the_status_of_a_command_that_fails(cloud):
    done = _tpu(cloud, "resume", "t", "--poll=0.1", "--", "bash", "-c", "exit 7")
    assert done.returncode == 7
    assert "the command failed with status 7" in done.stderr
    assert [call[3] for call in _calls(cloud)].count("create") == 1


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["start", "t"], "not 'start'"),
        (["create"], "create requires the name of a TPU VM"),
        (["run", "t"], "run requires a command after --"),
        (["run", "t", "python"], "unknown option 'python'"),
        (["create", "t", "--", "x"], "create takes no command"),
        (["create", "t", "--zone="], "unknown option '--zone='"),
    ],
)
def test_tpu_names_a_mistake_in_one_line(cloud, args, message):
    done = _tpu(cloud, *args)
    assert done.returncode == 2
    assert message in done.stderr and done.stderr.count("\n") == 1
