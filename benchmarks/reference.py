"""Samples of known information from `benchmark-mi`, and what its own estimators make of them.

The package (import name `bmi`, Czyż et al. 2023) has 40 pairs of variables whose mutual information
is known. Its pins clash with those of the study, so this file runs in an environment of its own
and imports nothing of ibcore:

    python3.11 -m venv /tmp/bmi/venv
    /tmp/bmi/venv/bin/pip install benchmark-mi==0.1.3 "numpy<2" jax==0.4.30 jaxlib==0.4.30
    /tmp/bmi/venv/bin/python benchmarks/reference.py samples FOLDER
    /tmp/bmi/venv/bin/python benchmarks/reference.py estimates FOLDER

`samples` writes FOLDER/<task>.npz with the arrays task, x, y and true_nats, and takes a minute.
`estimates` writes FOLDER/estimates.csv row by row, and goes on where it was interrupted. For times
on one core, put before it

    OMP_NUM_THREADS=1 XLA_FLAGS="--xla_cpu_multi_thread_eigen=false" taskset -c 0

Source: Czyż et al. (2023), Beyond Normal: On the Evaluation of Mutual Information Estimators.
"""

import argparse
import csv
import time
from pathlib import Path

import jax
import numpy as np
from bmi import BENCHMARK_TASKS, estimators

N_SAMPLES = 5000
FIELDS = [
    "task", "estimator", "nats", "seconds", "cpu_seconds", "compile_seconds", "steps", "true_nats"
]  # fmt: skip
ESTIMATORS = {
    "InfoNCE": lambda: estimators.InfoNCEEstimator(verbose=False),
    "MINE": lambda: estimators.MINEEstimator(verbose=False),
    "KSG": lambda: estimators.KSGEnsembleFirstEstimator(neighborhoods=(10,)),
    "CCA": estimators.CCAMutualInformationEstimator,
    "DonskerVaradhan": lambda: estimators.DonskerVaradhanEstimator(verbose=False),
    "NWJ": lambda: estimators.NWJEstimator(verbose=False),
}
_compiling: list[float] = []  # seconds of every run of the XLA compiler in this process


def write_samples(folder: Path, seed: int) -> None:
    """Write one .npz a task: task, x and y of shape (N_SAMPLES, dim), true_nats."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, (name, task) in enumerate(BENCHMARK_TASKS.items(), start=1):
        x, y = task.sample(N_SAMPLES, seed)
        partial = folder / f"{name}.partial"
        with partial.open("wb") as file:
            np.savez(file, task=name, x=x, y=y, true_nats=task.mutual_information)
        partial.replace(folder / f"{name}.npz")
        print(f"[{number}/{len(BENCHMARK_TASKS)}] {name}: {x.shape} and {y.shape}", flush=True)


def estimate(name: str, x: np.ndarray, y: np.ndarray) -> dict[str, float | int | str]:
    """Return nats, wall time, processor time, the part that XLA's compiler took, training steps.

    A neural estimator compiles its step anew in every call, so a user waits for it every time.
    On a busy machine the processor time says more than the wall time.
    """
    _compiling.clear()
    start, cpu_start = time.perf_counter(), time.process_time()
    result = ESTIMATORS[name]().estimate_with_info(x, y)
    nats = float(result.mi_estimate)
    return {
        "estimator": name,
        "nats": nats,
        "seconds": round(time.perf_counter() - start, 3),
        "cpu_seconds": round(time.process_time() - cpu_start, 3),
        "compile_seconds": round(sum(_compiling), 3),
        "steps": result.additional_information.get("n_training_steps", ""),
    }


def read_rows(path: Path) -> list[dict[str, str]]:
    """Return the rows of the table, after cutting off a last line that was never finished."""
    if not path.exists():
        path.write_text(",".join(FIELDS) + "\n")
    complete = path.read_text().rpartition("\n")[0] + "\n"
    path.write_text(complete)
    return list(csv.DictReader(complete.splitlines()))


def write_estimates(folder: Path) -> None:
    """Append to FOLDER/estimates.csv what is not there yet: every task by every estimator."""
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, seconds: (
            event.endswith("backend_compile_duration") and _compiling.append(seconds)
        )
    )
    path = folder / "estimates.csv"
    done = {(row["estimator"], row["task"]) for row in read_rows(path)}
    wanted = [(name, task) for name in ESTIMATORS for task in BENCHMARK_TASKS]
    with path.open("a", newline="") as file:
        table = csv.DictWriter(file, FIELDS, lineterminator="\n")
        for number, (name, task) in enumerate(wanted, start=1):
            if (name, task) in done:
                continue
            sample = np.load(folder / f"{task}.npz")
            row = {"task": task, **estimate(name, sample["x"], sample["y"])}
            table.writerow({**row, "true_nats": float(sample["true_nats"])})
            file.flush()
            found = f"{row['nats']:.3f} of {sample['true_nats']:.3f} nats, {row['seconds']:.1f} s"
            print(f"[{number}/{len(wanted)}] {name}, {task}: {found}", flush=True)
    print_summary(read_rows(path))


def print_summary(rows: list[dict[str, str]]) -> None:
    """Print the mean absolute error and the mean times of each estimator over the tasks."""
    times = ["seconds", "cpu_seconds", "compile_seconds"]
    print(f"{'estimator':<16} {'tasks':>5} {'error, nats':>12}", *(f"{t:>16}" for t in times))
    for name in ESTIMATORS:
        own = [row for row in rows if row["estimator"] == name]
        error = np.mean([abs(float(row["nats"]) - float(row["true_nats"])) for row in own])
        means = [np.mean([float(row[t]) for row in own]) for t in times]
        print(f"{name:<16} {len(own):>5} {error:>12.3f}", *(f"{mean:>16.2f}" for mean in means))


def main() -> None:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["samples", "estimates"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=0, help="of the samples (default: 0)")
    arguments = parser.parse_args()
    if arguments.what == "samples":
        write_samples(arguments.folder, arguments.seed)
    else:
        write_estimates(arguments.folder)


if __name__ == "__main__":
    main()
