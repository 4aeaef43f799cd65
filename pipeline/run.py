"""Run one notebook with the parameters of a profile.

    python -m pipeline.run notebooks/01_tishby.ipynb build/smoke/notebooks/01_tishby.ipynb \
        --profile study/profiles/smoke.yml

While it runs, the copy grows in `partial/` beside the output's folder; a run that fails or is
interrupted leaves it there to be read. Only a complete copy moves to the output.
"""

import argparse
import logging
import os
import sys
from pathlib import Path
from typing import Any

import nbformat
import papermill
from nbclient.exceptions import DeadKernelError
from papermill.exceptions import PapermillExecutionError

from study import settings

KINDS: dict[str, Any] = {
    "int": int,
    "float": float,
    "str": str,
    "bool": bool,
    "list[int]": tuple[int, ...],
    "list[float]": tuple[float, ...],
    "list[str]": tuple[str, ...],
}


def check_parameters(notebook: Path, section: dict[str, Any]) -> None:
    """Check a profile's section: a chapter's by its settings, another notebook's by its types.

    Raises:
        ValueError: a name that the notebook doesn't know, a parameter without a type, or a value
            that can't be; with what the notebook has.
    """
    if notebook.stem in settings.CHAPTERS.values():
        settings.make(notebook.stem[3:], section)
        return
    known = {
        name: parameter["inferred_type_name"]
        for name, parameter in papermill.inspect_notebook(str(notebook)).items()
    }
    listing = ", ".join(f"{name}: {kind}" for name, kind in known.items()) or "none"
    hint = f"Parameters of {notebook}: {listing}."
    for name, kind in known.items():
        if kind not in KINDS:
            raise ValueError(f"Parameter {name} has no type that a profile can give. {hint}")
    for name, value in section.items():
        if name not in known:
            raise ValueError(f"Unknown parameter {name!r}. {hint}")
        if not settings.fits(value, KINDS[known[name]]):
            raise ValueError(f"Parameter {name} is {known[name]}, not {value!r}. {hint}")


def strip(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """The notebook without times, host details and progress bars; ids, tags and results stay."""
    notebook.metadata.pop("papermill", None)
    notebook.metadata.get("language_info", {}).pop("version", None)
    for cell in notebook.cells:
        for key in ("papermill", "execution"):
            cell.metadata.pop(key, None)
        if not cell.metadata.get("tags", True):
            del cell.metadata["tags"]
        if "injected-parameters" in cell.metadata.get("tags", []):
            cell.id = "injected-parameters"
            cell.metadata.tags.append("hide-input")
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
    return notebook


def failing_cell(partial: Path) -> str:
    """The last cell that was begun in a partial copy: its number, first line and error."""
    cells = nbformat.read(partial, as_version=4).cells
    begun = [cell for cell in cells if cell.metadata.get("papermill", {}).get("start_time")]
    cell = [cell for cell in begun if cell.cell_type == "code"][-1]
    errors = [output for output in cell.outputs if output.output_type == "error"]
    reason = f"{errors[-1].ename}: {errors[-1].evalue}" if errors else "the kernel died"
    line = next(line for line in cell.source.splitlines() if line.strip())
    return f"cell In [{cell.execution_count or '*'}] `{line}`\n  {reason}"


def execute(notebook: Path, output: Path, parameters: dict[str, Any]) -> None:
    """Run the notebook and write its stripped copy, in one step when it is complete.

    Raises:
        RuntimeError: a cell failed; names the cell and the partial copy.
    """
    partial = (output.parent.parent / "partial" / output.name).resolve()
    output, cwd = output.resolve(), output.parent.resolve()
    partial.parent.mkdir(parents=True, exist_ok=True)
    cwd.mkdir(parents=True, exist_ok=True)
    for name in {"IBCORE_DATA", "STUDY_TABLES", "STUDY_JOBS"} & set(os.environ):
        os.environ[name] = str(Path(os.environ[name]).resolve())
    on_terminal = sys.stderr.isatty()
    try:
        papermill.execute_notebook(
            str(notebook.resolve()),
            str(partial),
            parameters,
            kernel_name="python3",
            cwd=str(cwd),
            progress_bar=on_terminal,
            stderr_file=sys.stderr if on_terminal else None,
            extra_arguments=["--log-level=ERROR"],
        )
    except (PapermillExecutionError, DeadKernelError) as error:
        where = f"{failing_cell(partial)}\n  partial copy: {partial}"
        raise RuntimeError(f"{notebook} failed in {where}") from error
    nbformat.write(strip(nbformat.read(partial, as_version=4)), partial)
    partial.replace(output)


def main(arguments: list[str] | None = None) -> int:
    """Run from the command line; 0, or 1 with one message where something is wrong."""
    parser = argparse.ArgumentParser(prog="pipeline.run", description=__doc__.splitlines()[0])
    parser.add_argument("notebook", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--profile", type=Path, help="YAML file; without it, the defaults")
    options = parser.parse_args(arguments)
    logging.getLogger("papermill").setLevel(logging.WARNING)
    try:
        profile = settings.sections(options.profile) if options.profile else {}
        parameters = profile.get(options.notebook.stem, {})
        check_parameters(options.notebook, parameters)
        execute(options.notebook, options.output, parameters)
    except (OSError, RuntimeError, ValueError) as error:
        print(f"\n{error}\n", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"\n{options.notebook} was interrupted", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
