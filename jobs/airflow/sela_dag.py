"""An Airflow DAG that runs a sela job, one task per stage.

list → extract (mapped over shards) → solve → label → publish → train

Put this file into the DAGs folder and set SELA_JOB, or import sela_dag() from
a file of your own. The stages run where the workers are (runner "bash"), or
each in a pod (runner "kubernetes"). What a task returns is the JSON object that
the command prints last: run, counts, URL and digest of the manifest.

Exit codes: 99 (nothing new) skips the task and all after it; 64, 65 and 78
(usage, data, configuration) fail without a retry; anything else is retried,
and a retried task goes on where it was stopped.
"""

from __future__ import annotations

import json
import os
import shlex
from datetime import timedelta
from functools import cached_property

from airflow.providers.standard.hooks.subprocess import SubprocessHook
from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG, Asset
from airflow.sdk.exceptions import AirflowException, AirflowFailException

NOTHING_NEW = 99
NO_RETRY = (64, 65, 78)

STAGES = ("list", "extract", "solve", "label", "publish", "train")

# The run that list began, or goes on with; its id needs no quotes.
RUN = "{{ ti.xcom_pull(task_ids='list')['run'] }}"


class _Subprocess(SubprocessHook):
    """Fails a task for good where its exit code says that a retry is no use."""

    def run_command(self, *args, **kwargs):
        result = super().run_command(*args, **kwargs)
        if result.exit_code in NO_RETRY:
            raise AirflowFailException(f"exit code {result.exit_code}: {result.output}")
        return result


class BashStage(BashOperator):
    """A stage as a process beside the worker."""

    def __init__(self, **kwargs):
        super().__init__(skip_on_exit_code=NOTHING_NEW, output_processor=json.loads, **kwargs)

    @cached_property
    def subprocess_hook(self):
        return _Subprocess()


def _pod_stage():
    """The operator for pods; its provider is needed only where it is used."""
    from airflow.providers.cncf.kubernetes.operators.pod import KubernetesPodOperator

    class PodStage(KubernetesPodOperator):
        """A stage as a pod."""

        def __init__(self, **kwargs):
            super().__init__(skip_on_exit_code=NOTHING_NEW, do_xcom_push=True, **kwargs)

        def cleanup(self, pod, remote_pod, *args, **kwargs):
            try:
                super().cleanup(pod, remote_pod, *args, **kwargs)
            except AirflowException as err:
                if exit_code(remote_pod, self.base_container_name) in NO_RETRY:
                    raise AirflowFailException(str(err)) from err
                raise

    return PodStage


def exit_code(pod, container):
    """The exit code of a pod's container, None if it has none."""
    for status in (pod and pod.status and pod.status.container_statuses) or []:
        if status.name == container and status.state and status.state.terminated:
            return status.state.terminated.exit_code
    return None


# The sidecar waits for the file whatever became of the command.
POD_SCRIPT = """
out=/airflow/xcom/out; mkdir -p /airflow/xcom
"$@" >"$out"; code=$?
cat "$out"; tail -n 1 "$out" >/airflow/xcom/return.json
[ -s "$out" ] || echo null >/airflow/xcom/return.json
exit $code
"""


def sela_dag(
    dag_id,
    job,
    labels,
    *,
    schedule="@daily",
    shards=4,
    runner="bash",
    command="sela",
    retries=3,
    retry_delay=timedelta(minutes=1),
    pod=None,
    **dag_options,
):
    """Returns the DAG of a job.

    job: the job file, where the workers or the pods see it
    labels: URL of the labels bucket, the asset that publish updates
    shards: number of extract tasks that share the images
    runner: "bash" or "kubernetes"
    command: the program, for bash; a pod's image has it as sela
    pod: arguments of KubernetesPodOperator for every pod: image, namespace,
        volumes, container_resources, env_vars, …
    """
    if runner not in ("bash", "kubernetes"):
        raise ValueError(f"runner is {runner!r}; it must be bash or kubernetes")
    asset = Asset(name=f"{dag_id}_labels", uri=labels)
    defaults = {"retries": retries, "retry_delay": retry_delay, "retry_exponential_backoff": True, "max_retry_delay": timedelta(hours=1)}

    def describe(context, result):
        known = ("run", "labels", "manifest", "manifest_digest", "manifest_sha256")
        context["outlet_events"][asset].extra = {k: result[k] for k in known if k in result}

    options = {"schedule": schedule, "catchup": False, "max_active_runs": 1, "tags": ["sela"], "doc_md": __doc__, **dag_options}
    with DAG(dag_id, default_args=defaults, **options) as dag:
        before = None
        for stage in STAGES:
            args = [stage, job] if stage == "list" else [stage, job, "--run-id", RUN]
            more = {"outlets": [asset], "post_execute": describe} if stage == "publish" else {}
            each = [[*args, "--shard", f"{i}/{shards}"] for i in range(shards)] if stage == "extract" else [args]
            if runner == "bash":
                operator, field = BashStage, "bash_command"
                values = ["exec " + " ".join(a if a == RUN else shlex.quote(a) for a in [command, *line]) for line in each]
            else:
                operator, field = _pod_stage(), "arguments"
                more |= {"name": f"sela-{stage}", "cmds": ["sh", "-c", POD_SCRIPT, "sela"], **(pod or {})}
                values = [["sela", *line] for line in each]
            if stage == "extract":
                task = operator.partial(task_id=stage, **more).expand(**{field: values})
            else:
                task = operator(task_id=stage, **more, **{field: values[0]})
            if before is not None:
                before >> task
            before = task
    return dag


if "SELA_JOB" in os.environ:
    dag = sela_dag(
        os.environ.get("SELA_DAG_ID", "sela"),
        os.environ["SELA_JOB"],
        os.environ["SELA_LABELS"],
        schedule=os.environ.get("SELA_SCHEDULE", "@daily"),
        shards=int(os.environ.get("SELA_SHARDS", "4")),
        runner=os.environ.get("SELA_RUNNER", "bash"),
        pod={"image": os.environ["SELA_IMAGE"]} if "SELA_IMAGE" in os.environ else None,
    )
