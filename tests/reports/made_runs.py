"""Runs, a sweep and a curation, written by hand, with everything that their pages draw."""

import json

from marco_jax.evaluation.results import Result, write_results

LANGUAGES = ("en", "zh", "de", "kk", "ne")
STAGES = (("base", 0, 40), ("stage1", 40, 80))
METRICS = {
    "bits_per_byte": ("bits_per_byte",),
    "pick_translation": ("accuracy_pmi", "accuracy"),
    "translation": ("chrf++",),
    "belebele": ("accuracy",),
}


def write_run(workdir, scale):
    """A run of two stages, the second with a restart."""
    workdir.mkdir()
    rows = []
    for name, first, last in STAGES:
        for step in range(first + 1, last + 1):
            loss = scale * (2 + 40 / (step + 10)) + 0.2 * (step % 3)
            row = {"step": step, "stage": name, "loss": loss, "learning_rate": 1e-3 / step}
            row |= {"grad_norm": 0.4, "tokens": 100 * step, "tokens_per_second": 5e4, "mfu": 0.4}
            row |= {"padding": 0.01, "step_seconds": 0.5, "input_seconds": 0.01, "devices": 8}
            row |= {"hbm_bytes": 6e9, "hbm_peak_bytes": 8e9, "hbm_limit_bytes": 16e9}
            # A restart after step 60: sums begin again.
            since = step if step <= 60 else step - 60
            row |= {f"{part}_seconds": 0.1 * since for part in ("compile", "evaluation")}
            row |= {"checkpoint_seconds": 0.05 * since}
            for code in (*LANGUAGES, "parallel", "parallel/kk"):
                row |= {f"loss/{code}": loss, f"tokens/{code}": 20}
            rows.append(row)
    (workdir / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    shares = dict.fromkeys((*LANGUAGES, "parallel"), 1 / 6)
    stages = [{"name": n, "steps": last - first, "shares": shares} for n, first, last in STAGES]
    (workdir / "mixture.json").write_text(json.dumps({"stages": stages}))
    config = {"steps": 80, "seed": scale, "name": "a-name-without-any-break-" * 8}
    config |= {"price_per_device_hour": 2.5}
    (workdir / "config.json").write_text(json.dumps(config))
    (workdir / "environment.json").write_text(json.dumps(environment()))
    (workdir / "checkpoints" / "80").mkdir(parents=True)
    (workdir / "samples").mkdir()
    for step in (40, 60, 80):
        write_results(workdir / "eval" / f"{step}.json", results(step, scale))
        samples = [
            {"language": code, "prompt": f"prompt {code}", "text": f"answer {step}", "ended": True}
            for code in ("en", "ur")
        ]
        found = {"step": step, "tokens": 48, "samples": samples}
        (workdir / "samples" / f"{step}.json").write_text(json.dumps(found))
    return workdir


def results(step, scale):
    """Of all tasks at a step."""
    return [
        Result(task, code, 0, metric, scale * (0.5 + 1 / step), 0.01, 10)
        for task, metrics in METRICS.items()
        for metric in metrics
        for code in (*LANGUAGES, "all", "high", "low")
        if task != "bits_per_byte" or code != "all"
    ]


def environment():
    """What a run records of its machine."""
    return {
        "started": 1.79e9,
        "config": "configs/demo.py",
        "commit": "0123456789abcdef0123456789abcdef01234567",
        "modified": True,
        "hosts": 2,
        "devices": 8,
        "device_kind": "TPU v5p",
        "platform": "tpu",
        "versions": {"marco_jax": "0.1.0", "jax": "0.10.2"},
        "changed": {"batch.length": [256, 512], "stage.stage1.steps": [0, 40]},
    }


def write_sweep(folder):
    """The workdir of a finished sweep with a bounded target."""
    names = ("prior", "random_0", "random_1", "random_2")
    targets = ("bits_per_byte/bits_per_byte/kk", "bits_per_byte/bits_per_byte/en")
    for number, name in enumerate(names):
        run = folder / "proxies" / name
        (run / "eval").mkdir(parents=True)
        rows = [
            {"step": step, "loss": 5 - 0.1 * step + 0.1 * number, "tokens": 100 * step}
            for step in range(1, 21)
        ]
        (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        (run / "status.json").write_text(json.dumps({"status": "done", "seconds": 3.0}))
        found = [
            Result("bits_per_byte", code, 0, "bits_per_byte", 2 + 0.1 * number, 0.0, 10)
            for code in ("kk", "en")
        ]
        write_results(run / "eval" / "20.json", found)
    fit = {"rank_correlation": 0.9, "error": 0.01, "error_of_mean": 0.05, "failure": ""}
    fit |= {"left_out": {name: 2 + 0.1 * n for n, name in enumerate(names)}}
    fit |= {"effects": {"en": [-0.1, -0.2, 0.0], "kk": [0.3, 0.2, 0.4]}}
    shares = {"en": 0.6, "kk": 0.4}
    proposal = {"weights": shares, "low": {"en": 0.5, "kk": 0.3}, "high": {"en": 0.7, "kk": 0.5}}
    proposal |= {"reason": "", "override": "kk=0.4", "before": dict.fromkeys(targets, 2.0)}
    proposal |= {"predicted": dict.fromkeys(targets, 1.9)}
    proposal |= {"ranges": dict.fromkeys(targets, [0.9, 0.99]), "breaks": {targets[1]: 0.05}}
    curve = [
        {"rise": 0.01 * n, "weights": shares, "override": f"kk=0.{n}",
         "changes": {targets[0]: -0.01 * n, targets[1]: 0.005 * n}}
        for n in range(1, 6)
    ]  # fmt: skip
    objective = {"targets": {targets[0]: 1.0}, "bounds": {targets[1]: 0.01}, "quantile": 0.9}
    analysis = {"faults": [], "bounds_on": "quantile", "fits": dict.fromkeys(targets, fit)}
    analysis |= {"objective": objective, "prior": {"en": 0.8, "kk": 0.2}, "proposal": proposal}
    (folder / "analysis.json").write_text(json.dumps(analysis | {"trade_off": curve}))
    return folder


def curation_report():
    """What `curate` returns for two languages."""
    funnel = [
        {"after": name, "documents": n, "bytes": 9 * n, "tokens": 2 * n}
        for name, n in (("input", 30), ("rules", 20))
    ]
    entry = {"read": 30, "kept": 20, "bytes": 180, "tokens": 0, "rejected": {"rules: short": 10}}
    entry |= {"funnel": funnel}
    total = {"read": 60, "kept": 40, "kept_bytes": 360, "masked": 2, "unreadable": 1}
    return {
        "total": total,
        "funnel": funnel,
        "languages": {"en": entry, "kk": entry, "sw": entry | {"kept": 0}},
        "unreadable": {"not JSON": 1},
        "charsets": {"windows-1251": 4},
        "pair_judges": [{"languages": "en-kk", "kind": "lexicon", "pairs": 9, "wrong": 0.1}],
        "cluster_sizes": {"2": 1},
        "histograms": [
            {"language": code, "rule": rule, "counts": [[0.1, 2], [0.5, 9], [0.9, 4]]}
            | {"least": 0.2, "most": None}
            for code in ("en", "kk")
            for rule in ("letters", "digits")
        ],
        "samples": [{"language": "kk", "fate": "kept", "id": "1", "text": "мәтін"}],
    }
