"""Runs the DAG on a real Airflow: see make test-airflow.

SELA is the program, SELA_IMAGES a folder with CIFAR-10's test images (others
are made where it is missing).
"""

import io
import json
import os
import random
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tarfile
import tempfile
import time
import unittest
import urllib.error
import urllib.parse
import urllib.request
import zlib
from pathlib import Path
from types import SimpleNamespace as Record
from unittest.mock import MagicMock

HERE = Path(__file__).resolve().parent
SELA = os.environ["SELA"]
IMAGES = 2500  # three tasks of extract
WAIT = 240  # seconds until a state must be reached

# The first try of one extract task is killed once it has committed something.
FLAKY = """#!/bin/bash
if [ "$1" = extract ] && [[ "$*" == *"--shard 0/2"* ]] && mkdir {dir}/killed 2>/dev/null; then
	{sela} "$@" & pid=$!
	until compgen -G "{dir}/work/runs/*/commits/extract/*" >/dev/null; do kill -0 $pid || exit 70; sleep 0.02; done
	kill -KILL $pid; wait $pid
	cp -a {dir}/work {dir}/at-kill
	exit 75
fi
if [ "$1" = list ] && [ -e {dir}/broken ]; then echo '{{"exit_code":78}}'; exit 78; fi
exec {sela} "$@"
"""

DAGS = """
import sys
sys.path.insert(0, {here!r})
from datetime import timedelta
from airflow.sdk import DAG, task
from sela_dag import sela_dag

made = sela_dag("labels", {job!r}, "file://{dir}/labels", schedule=None, shards=2, command="{dir}/flaky",
    retries=4, retry_delay=timedelta(seconds=2))
pods = sela_dag("pods", "/job.yaml", "s3://bucket/labels", runner="kubernetes", schedule=None, pod={{"image": "sela"}})

with DAG("training", schedule=None) as training:
    @task
    def train(dag_run=None):
        with open("{dir}/trained", "a") as f:
            f.write(__import__("json").dumps(dag_run.conf) + "\\n")
    train()
"""


def images(folder):
    """A tar of IMAGES images, from CIFAR-10 where it is there."""
    folder.mkdir()
    source = Path(os.environ.get("SELA_IMAGES", "/none"), "cifar10-test-00000.tar")
    with tarfile.open(folder / "images.tar", "w", format=tarfile.USTAR_FORMAT) as out:
        if source.exists():
            with tarfile.open(source) as tar:
                members = [m for m in tar if m.name.endswith((".jpg", ".jpeg", ".png"))][:IMAGES]
                for m in members:
                    out.addfile(m, tar.extractfile(m))
            return len(members)
        lot = random.Random(1)
        for i in range(IMAGES):
            rows = b"".join(b"\0" + lot.randbytes(96) for _ in range(32))
            raw = b"\x89PNG\r\n\x1a\n"
            for kind, data in ((b"IHDR", struct.pack(">IIBBBBB", 32, 32, 8, 2, 0, 0, 0)), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")):
                raw += struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
            info = tarfile.TarInfo(f"{i:05}.png")
            info.size = len(raw)
            out.addfile(info, io.BytesIO(raw))
    return IMAGES


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Airflow:
    """An Airflow of its own, with scheduler and API server."""

    def __init__(self, folder):
        self.folder, self.port = folder, free_port()
        home = folder / "airflow"
        home.mkdir()
        passwords = home / "passwords.json"
        passwords.write_text('{"ann": "p4ssw0rd"}')
        self.url = f"http://127.0.0.1:{self.port}"
        self.env = os.environ | {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "AIRFLOW_HOME": str(home),
            "AIRFLOW__CORE__DAGS_FOLDER": str(folder / "dags"),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": "ann:admin",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(passwords),
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": self.url + "/execution/",
            "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
            "AIRFLOW__CORE__PARALLELISM": "4",
            "AIRFLOW__API__PORT": str(self.port),
            "AIRFLOW__API__HOST": "127.0.0.1",
            "AIRFLOW__API__WORKERS": "1",
            "AIRFLOW__API__BASE_URL": self.url,
            "AIRFLOW__API_AUTH__JWT_SECRET": "a secret of this test alone, 64 bytes long or more, as HS512 wants",
            "AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": str(free_port()),
            "AIRFLOW__TRIGGERER__TRIGGER_LOG_SERVER_PORT": str(free_port()),
            "AIRFLOW__SCHEDULER__SCHEDULER_HEARTBEAT_SEC": "1",
        }
        self.log = open(folder / "airflow.log", "w")
        self.process = subprocess.Popen(["airflow", "standalone"], env=self.env, stdout=self.log, stderr=self.log, start_new_session=True)
        self.token = None

    def stop(self):
        os.killpg(self.process.pid, signal.SIGTERM)
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            pass
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.wait()
        self.log.close()

    def call(self, method, path, body=None):
        if not self.token and path != "/auth/token":
            self.token = self.call("POST", "/auth/token", {"username": "ann", "password": "p4ssw0rd"})["access_token"]
        request = urllib.request.Request(self.url + path, method=method, data=None if body is None else json.dumps(body).encode())
        request.add_header("Content-Type", "application/json")
        if self.token:
            request.add_header("Authorization", "Bearer " + self.token)
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)

    def until(self, what, probe):
        end = time.monotonic() + WAIT
        while True:
            try:
                if got := probe():
                    return got
                seen = "not yet"
            except (urllib.error.URLError, OSError) as err:
                seen = err
            if self.process.poll() is not None or time.monotonic() > end:
                raise AssertionError(f"{what}: {seen}\n" + (self.folder / "airflow.log").read_text()[-4000:])
            time.sleep(1)

    def ended(self, dag, run):
        path = f"/api/v2/dags/{dag}/dagRuns/{urllib.parse.quote(run)}"

        def probe():
            state = self.call("GET", path)["state"]
            return state if state in ("success", "failed") else None

        state = self.until(f"{dag} {run} ends", probe)
        tasks = self.call("GET", path + "/taskInstances")["task_instances"]
        return state, {(t["task_id"], t["map_index"]): t for t in tasks}

    def run(self, dag, run):
        self.call("POST", f"/api/v2/dags/{dag}/dagRuns", {"dag_run_id": run, "logical_date": None})
        return self.ended(dag, run)


class TestDAG(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.dir = Path(tempfile.mkdtemp(prefix="sela-airflow."))
        cls.addClassCleanup(shutil.rmtree, cls.dir, ignore_errors=True)
        cls.images = images(cls.dir / "images")
        subprocess.run([SELA, "model", "new", "--arch", "resnet-s", "--size", "32", "--heads", "1", "--clusters", "16", "--seed", "7",
            "--calibrate", cls.dir / "images", "--out", cls.dir / "model.onnx"], check=True, capture_output=True)
        flaky = cls.dir / "flaky"
        flaky.write_text(FLAKY.format(dir=cls.dir, sela=SELA))
        flaky.chmod(0o755)
        (cls.dir / "dags").mkdir()
        (cls.dir / "dags" / "dags.py").write_text(DAGS.format(here=str(HERE), dir=cls.dir, job=str(cls.dir / "job.yaml")))
        os.environ["AIRFLOW_LOGIN"] = "ann:p4ssw0rd"
        cls.airflow = Airflow(cls.dir)
        cls.addClassCleanup(cls.airflow.stop)
        (cls.dir / "job.yaml").write_text(f"""
job: airflow
images: {{bucket: images}}
work: {{bucket: work}}
labels: {{bucket: labels}}
model: {{path: model.onnx, heads: 1, clusters: 16}}
preprocess: {{resize: 0, crop: 32}}
extract: {{shard_rows: 1024}}
label: {{max_count_ratio: 16}}
runtime: {{threads: 1}}
local: {{dir: local, bytes: 1GiB}}
retries: {{task: 1}}
train: {{type: airflow, url: "{cls.airflow.url}", dag: training, login_env: AIRFLOW_LOGIN}}
""")
        cls.airflow.until("DAGs are parsed", lambda: {"labels", "pods", "training"} <= {
            d["dag_id"] for d in cls.airflow.call("GET", "/api/v2/dags")["dags"]})

    def test_1_parses(self):
        errors = self.airflow.call("GET", "/api/v2/importErrors")["import_errors"]
        self.assertEqual(errors, [])
        for dag in ("labels", "pods"):
            tasks = {t["task_id"]: t for t in self.airflow.call("GET", f"/api/v2/dags/{dag}/tasks")["tasks"]}
            self.assertEqual(set(tasks), {"list", "extract", "solve", "label", "publish", "train"})
            self.assertTrue(tasks["extract"]["is_mapped"])

    def test_2_run_is_killed_resumed_and_trained_once(self):
        state, tasks = self.airflow.run("labels", "first")
        self.assertEqual(state, "success", {k: t["state"] for k, t in tasks.items()})
        self.assertEqual(tasks["extract", 0]["try_number"], 2)
        self.assertEqual(tasks["extract", 1]["try_number"], 1)
        # What had been committed when it was killed was not done again.
        kept = [p for p in (self.dir / "at-kill").glob("runs/*/commits/extract/*") if p.is_file()]
        self.assertTrue(kept)
        for p in kept:
            now = self.dir / "work" / p.relative_to(self.dir / "at-kill")
            self.assertEqual((now.read_bytes(), now.stat().st_mtime_ns), (p.read_bytes(), p.stat().st_mtime_ns))

        value = self.airflow.call("GET", "/api/v2/dags/labels/dagRuns/first/taskInstances/publish/xcomEntries/return_value?deserialize=true")["value"]
        result = json.loads(value) if isinstance(value, str) else value
        self.assertEqual(result["counts"]["list"]["images"], self.images)
        events = self.airflow.call("GET", "/api/v2/assets/events?source_dag_id=labels")["asset_events"]
        self.assertEqual(len(events), 1)
        self.assertEqual(events[0]["extra"]["manifest_digest"], result["manifest_digest"])

        # The training DAG has its run, named by the manifest, and no other.
        run = "sela__" + result["manifest_digest"]
        self.assertEqual(self.airflow.ended("training", run)[0], "success")
        conf = json.loads((self.dir / "trained").read_text())
        self.assertEqual((conf["run"], conf["digest"], conf["manifest"]), (result["run"], result["manifest_digest"], result["manifest"]))
        # Equal labels by another run, whose trigger does not know of the first.
        subprocess.run([SELA, "run", self.dir / "job.yaml", "--run-id", "again"], check=True, capture_output=True)
        runs = self.airflow.call("GET", "/api/v2/dags/training/dagRuns")["dag_runs"]
        self.assertEqual([r["dag_run_id"] for r in runs], [run])
        self.assertEqual((self.dir / "trained").read_text().count("\n"), 1)

    def test_3_nothing_new_is_skipped(self):
        state, tasks = self.airflow.run("labels", "second")
        self.assertEqual({t["state"] for t in tasks.values()}, {"skipped"}, state)
        self.assertEqual(len(self.airflow.call("GET", "/api/v2/assets/events?source_dag_id=labels")["asset_events"]), 1)

    def test_4_bad_configuration_is_not_retried(self):
        (self.dir / "broken").touch()
        state, tasks = self.airflow.run("labels", "third")
        self.assertEqual((state, tasks["list", -1]["state"], tasks["list", -1]["try_number"]), ("failed", "failed", 1))

    def test_5_airflow_is_down(self):
        job = (self.dir / "job.yaml").read_text().replace(self.airflow.url, f"http://127.0.0.1:{free_port()}")
        (self.dir / "down.yaml").write_text(job)
        got = subprocess.run([SELA, "run", self.dir / "down.yaml", "--run-id", "down"], capture_output=True, text=True)
        result = json.loads(got.stdout.splitlines()[-1])
        self.assertEqual(got.returncode, 75, got.stderr)
        self.assertIn("the labels stay published", result["error"])
        self.assertTrue((self.dir / "labels" / "runs" / "down").is_dir())


class TestPod(unittest.TestCase):
    """What can be known without a cluster: the script, and the exit codes."""

    def script(self, command):
        sys.path.insert(0, str(HERE))
        import sela_dag

        with tempfile.TemporaryDirectory() as folder:
            script = sela_dag.POD_SCRIPT.replace("/airflow/xcom", folder)
            got = subprocess.run(["sh", "-c", script, "sela", "sh", "-c", command], capture_output=True, text=True)
            return got.returncode, got.stdout, json.loads(Path(folder, "return.json").read_text())

    def test_script_hands_over_result_and_exit_code(self):
        self.assertEqual(self.script("""echo a; echo '{"run": "x"}'"""), (0, 'a\n{"run": "x"}\n', {"run": "x"}))
        self.assertEqual(self.script("""echo '{"exit_code": 78}'; exit 78"""), (78, '{"exit_code": 78}\n', {"exit_code": 78}))
        self.assertEqual(self.script("exit 75"), (75, "", None))

    def test_exit_codes(self):
        sys.path.insert(0, str(HERE))
        import sela_dag
        from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowSkipException

        dag = sela_dag.sela_dag("codes", "job.yaml", "s3://bucket/labels", runner="kubernetes", pod={"image": "sela"})
        stage = dag.get_task("solve")
        for part in ("hook", "client", "pod_manager", "process_pod_deletion", "patch_already_checked"):
            stage.__dict__[part] = MagicMock()  # what would ask the cluster
        for code, want in ((0, None), (64, AirflowFailException), (65, AirflowFailException), (78, AirflowFailException),
                (70, AirflowException), (75, AirflowException), (137, AirflowException), (99, AirflowSkipException)):
            ended = Record(exit_code=code, message=None, reason=None)
            status = Record(name="base", state=Record(terminated=ended, waiting=None, running=None))
            pod = Record(status=Record(phase="Failed" if code else "Succeeded", container_statuses=[status], init_container_statuses=None),
                metadata=Record(name="p", namespace="n"), spec=Record(containers=[]))
            try:
                stage.cleanup(pod, pod, None, None)
                got = None
            except AirflowException as err:
                got = type(err)
            self.assertIs(got, want, f"exit code {code}")


if __name__ == "__main__":
    unittest.main()
