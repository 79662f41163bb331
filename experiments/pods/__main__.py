"""Runs of `marco` on TPU slices.

    python -m experiments.pods launch --name=stage1 --topology=v5p:4x4x4 --project=P --zone=Z \
        -- train --config=configs/qwen2_7b.py --workdir=gs://B/stage1 \
        --config.init_from=gs://B/base --config.data=gs://B/sources.json
    python -m experiments.pods status --name=stage1 --price=4.2
    python -m experiments.pods logs --name=stage1 --follow
    python -m experiments.pods stop --name=stage1
    python -m experiments.pods estimate --config=configs/qwen2_7b.py --plan=plan.json --price=4.2

`launch` checks what is to run, asks for the slices, sets every host up, starts the run, watches it
and starts it again after a preemption; the same command goes on watching a run that is there. When
the run has ended, well or not, the slices are released. With --via=xpk the run is a workload on
GKE, which Kubernetes starts again. --dry_run prints each command and runs none.

No real pod has run this: its commands are tested against programs that record them.
"""

from __future__ import annotations

import argparse
import pathlib
import re
import sys
from collections.abc import Sequence

from experiments.pods.estimate import estimate_lines, predicted_hours, read_plan
from experiments.pods.flags import QUEUED, RECORDED, XPK, create_launcher_parser, fill_in
from experiments.pods.gke import Workload
from experiments.pods.job import MOUNT_POINT, Job, read_job
from experiments.pods.queued import QueuedRun
from experiments.pods.record import Record
from experiments.pods.request import Request
from experiments.pods.shell import CommandFailed, Shell, say
from experiments.pods.slices import Slice

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
DONE, FAILED, BAD_INPUT = 0, 1, 2


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one verb; returns the exit code (0 done, 1 failed, 2 bad input, 143 stopped)."""
    given = list(sys.argv[1:] if argv is None else argv)
    split = given.index("--") if "--" in given else len(given)
    given, marco = given[:split], given[split + 1 :]
    try:
        arguments = create_launcher_parser(__doc__.partition("\n")[0]).parse_args(given)
        if arguments.verb == "estimate":
            return _estimate(arguments)
        if arguments.verb == "launch":
            return _launch(arguments, marco)
        if marco:
            raise ValueError(f"{arguments.verb} takes nothing after --")
        return _look(arguments)
    except (ValueError, OSError) as error:
        say(f"pods: {' '.join(str(error).split())}")
        return BAD_INPUT
    except CommandFailed as error:
        say(f"pods: {error}")
        return FAILED
    except KeyboardInterrupt:
        say("pods: no longer watched; the run goes on, and the same command watches it again")
        return 130


def _launch(arguments: argparse.Namespace, marco: list[str]) -> int:
    """Checks everything that can be checked here, and only then calls other programs."""
    job, hours = _checked(arguments, marco)
    arguments.num_slices = job.count
    env = _environment(arguments.env)
    shell = Shell(dry_run=arguments.dry_run, pause=arguments.pause)
    logs = pathlib.Path(arguments.logs)
    record = Record.read(logs, arguments.name)
    if arguments.via == QUEUED:
        _check_committed(job, shell)
    record.run = {name: getattr(arguments, name) for name in RECORDED}
    record.chips = job.slice.chips * job.count
    record.price = record.price if arguments.price is None else arguments.price
    record.hours = list(hours) if hours else record.hours
    if not shell.dry_run:
        record.write()
    if arguments.via == XPK:
        return _launch_workload(_workload(arguments, env), job, record, shell, logs)
    run = QueuedRun(
        _request(arguments, env), job.arguments, shell, None if shell.dry_run else record
    )
    return run.launch(
        ROOT,
        logs,
        arguments.poll,
        arguments.restarts,
        failures=arguments.failures,
        keep=arguments.keep,
    )


def _checked(
    arguments: argparse.Namespace, marco: list[str]
) -> tuple[Job, tuple[float, float] | None]:
    """What the hosts are to run, and the hours that --plan predicts."""
    if not marco:
        raise ValueError(
            "launch needs what marco is to do after --, such as -- train "
            "--config=configs/qwen2_7b.py --workdir=gs://BUCKET/run"
        )
    fill_in(arguments, {})
    slice = Slice.parse(arguments.topology)
    _check_backend(arguments)
    job = read_job(
        marco,
        slice,
        arguments.num_slices,
        ROOT,
        mounted=arguments.mount != "none" or bool(arguments.storage),
        builtin_data=arguments.allow_builtin_data,
        random_weights=arguments.allow_random_weights,
    )
    if not arguments.plan:
        return job, None
    plan = read_plan(arguments.plan, slice, job.count)
    return job, predicted_hours(plan, job.steps) if job.steps else None


def _check_backend(arguments: argparse.Namespace) -> None:
    """Refuses flags that the way to the slices has no use for (ValueError)."""
    if arguments.mount != "none" and not re.fullmatch(r"(bucket|nfs):.+", arguments.mount):
        raise ValueError(f"--mount={arguments.mount}: write bucket:NAME or nfs:SERVER:/PATH")
    if arguments.via == QUEUED:
        for name in ("image", "storage", "reservation"):
            if value := getattr(arguments, name):
                remedy = "; give --mount" if name == "storage" else ""
                raise ValueError(f"--{name}={value} is for --via=xpk{remedy}")
        arguments.capacity = arguments.capacity or "on-demand"
        return
    if not arguments.image:
        raise ValueError("--via=xpk needs --image: experiments/pods/Dockerfile makes it")
    if arguments.mount != "none":
        kind, _, name = arguments.mount.partition(":")
        attach = f"--type=gcsfuse --bucket={name}" if kind == "bucket" else "--type=gcpfilestore"
        raise ValueError(
            f"--mount={arguments.mount} is for queued resources: attach the storage to the cluster "
            f"once, by `xpk storage attach NAME {attach} --mount-point={MOUNT_POINT} "
            "--readonly=false --auto-mount=false`, and give --storage=NAME"
        )
    if arguments.service_account:
        raise ValueError(
            f"--service_account={arguments.service_account} is for queued resources: on GKE the "
            "nodes' account, or Workload Identity, has the roles"
        )
    if (arguments.capacity == "reserved") != bool(arguments.reservation):
        raise ValueError(
            f"--capacity={arguments.capacity or 'on-demand'} and --reservation="
            f"{arguments.reservation or 'NAME'}: on GKE a reservation is used by its name, with "
            "--capacity=reserved"
        )
    if arguments.keep:
        raise ValueError("--keep is for queued resources: a cluster keeps its nodes itself")


def _check_committed(job: Job, shell: Shell) -> None:
    """Refuses a config that the last commit, which the hosts get, has otherwise (ValueError).

    Other changes that are not committed are logged.
    """
    status = ["git", "-C", str(ROOT), "status", "--porcelain"]
    changed = [line[3:] for line in shell.must(status, attempts=1).splitlines()]
    for file in changed:
        if file == job.config:
            raise ValueError(
                f"--config={file} has changes that are not committed, and the hosts run the last "
                "commit: commit it"
            )
    if changed:
        say(f"not on the hosts, which run the last commit: changes of {', '.join(changed[:5])}")


def _environment(items: Sequence[str]) -> dict[str, str]:
    for item in items:
        if not re.match(r"[A-Za-z_]\w*=", item):
            raise ValueError(f"--env={item}: write NAME=VALUE")
    return dict(item.split("=", 1) for item in items)


def _look(arguments: argparse.Namespace) -> int:
    """status, logs, stop and delete."""
    logs = pathlib.Path(arguments.logs)
    record = Record.read(logs, arguments.name)
    fill_in(arguments, record.run)
    shell = Shell(dry_run=arguments.dry_run, pause=arguments.pause)
    if arguments.via == XPK:
        lines = _look_at_workload(arguments, record, shell, logs)
    else:
        lines = _look_at_slices(arguments, record, shell, logs)
    if arguments.verb == "status":
        lines += record.lines(shell.now(), arguments.price)
        print("\n".join(lines))
    return DONE


def _look_at_slices(
    arguments: argparse.Namespace, record: Record, shell: Shell, logs: pathlib.Path
) -> list[str]:
    run = QueuedRun(_request(arguments), [], shell, None if shell.dry_run else record)
    if arguments.verb == "status":
        return run.status()
    if arguments.verb == "logs" and arguments.every_host:
        run.gather(logs)
    elif arguments.verb == "logs":
        run.tail(arguments.lines, follow=arguments.follow)
    elif arguments.verb == "stop":
        run.stop(logs, keep=arguments.keep)
    else:
        run.delete()
    return []


def _look_at_workload(
    arguments: argparse.Namespace, record: Record, shell: Shell, logs: pathlib.Path
) -> list[str]:
    workload = _workload(arguments)
    if arguments.verb == "status":
        return workload.status(shell)
    if arguments.verb == "logs" and arguments.every_host:
        _copy_logs(workload, shell, logs)
    elif arguments.verb == "logs":
        workload.tail(arguments.lines, shell, follow=arguments.follow)
    elif arguments.verb == "stop" and arguments.keep:
        raise ValueError("--keep is for queued resources: a cluster keeps its nodes itself")
    else:
        workload.delete(shell)
        if not shell.dry_run:
            record.release(shell.now())
    return []


def _launch_workload(
    workload: Workload, job: Job, record: Record, shell: Shell, logs: pathlib.Path
) -> int:
    workload.submit(job.arguments, shell)
    if not shell.dry_run:
        record.hold(shell.now())
        record.start(job.arguments)
    code = DONE if workload.wait(shell) else FAILED
    _copy_logs(workload, shell, logs)
    if not shell.dry_run:
        record.release(shell.now())
    return code


def _copy_logs(workload: Workload, shell: Shell, logs: pathlib.Path) -> None:
    text = workload.logs(shell)
    if not shell.dry_run:
        logs.mkdir(parents=True, exist_ok=True)
        (logs / f"{workload.name}.log").write_text(text, encoding="utf-8")
        say(f"logs: {logs / workload.name}.log")


def _request(arguments: argparse.Namespace, env: dict[str, str] | None = None) -> Request:
    names = ("capacity", "mount", "service_account")
    own = {name: getattr(arguments, name) for name in names if hasattr(arguments, name)}
    return Request(
        arguments.name,
        Slice.parse(arguments.topology),
        arguments.num_slices or 1,
        arguments.project,
        arguments.zone,
        env=env or {},
        **own,
    )


def _workload(arguments: argparse.Namespace, env: dict[str, str] | None = None) -> Workload:
    names = ("storage", "restarts")
    own = {name: getattr(arguments, name) for name in names if hasattr(arguments, name)}
    return Workload(
        arguments.name,
        Slice.parse(arguments.topology),
        arguments.num_slices or 1,
        arguments.cluster,
        arguments.project,
        arguments.zone,
        getattr(arguments, "image", ""),
        capacity=getattr(arguments, "capacity", None) or "",
        reservation=getattr(arguments, "reservation", ""),
        env=env or {},
        **own,
    )


def _estimate(arguments: argparse.Namespace) -> int:
    from marco_jax.training.config import load_config

    plan = read_plan(arguments.plan)
    config = load_config(arguments.config)
    steps = arguments.steps or config.steps
    topology = plan.get("planned", {}).get("topology") or config.topology
    chips = Slice.parse(topology).chips * plan.get("planned", {}).get("num_slices", 1)
    print("\n".join(estimate_lines(plan, steps, chips, arguments.price)))
    return DONE


if __name__ == "__main__":
    sys.exit(main())
