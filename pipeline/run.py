"""Run one notebook with the parameters of a profile.

    python -m pipeline.run notebooks/01_tishby.ipynb build/smoke/notebooks/01_tishby.ipynb \
        --profile profiles/smoke.yml

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
import yaml
from nbclient.exceptions import DeadKernelError
from papermill.exceptions import PapermillExecutionError

TYPES: dict[str, tuple[type, ...]] = {
    "int": (int,),
    "float": (int, float),
    "str": (str,),
    "bool": (bool,),
}


def load_profile(path: Path) -> dict[str, dict[str, Any]]:
    """The profile: notebook stem → parameter → value.

    Raises:
        ValueError: the file is not such a mapping.
    """
    sections = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    if not isinstance(sections, dict):
        raise ValueError(f"{path} must map notebooks to parameters")
    for stem, section in sections.items():
        if section is not None and not isinstance(section, dict):
            raise ValueError(f"{path}: {stem} must map parameters to values, it is {section!r}")
    return {stem: section or {} for stem, section in sections.items()}


def has_type(value: Any, annotation: str) -> bool:
    """Whether a value from YAML fits the annotation; an int is a float, a bool is neither."""
    if annotation.startswith("list[") and annotation.endswith("]"):
        return isinstance(value, list) and all(has_type(item, annotation[5:-1]) for item in value)
    if isinstance(value, bool):
        return annotation == "bool"
    return isinstance(value, TYPES[annotation])


def check_parameters(notebook: Path, section: dict[str, Any]) -> None:
    """Check a profile's section against the annotated parameters of the notebook.

    Raises:
        ValueError: a name that the notebook doesn't know, a parameter without a type, or a value
            of another type; with the names and types that the notebook has.
    """
    known = {
        name: parameter["inferred_type_name"]
        for name, parameter in papermill.inspect_notebook(str(notebook)).items()
    }
    listing = ", ".join(f"{name}: {kind}" for name, kind in known.items()) or "none"
    hint = f"Parameters of {notebook}: {listing}."
    for name, kind in known.items():
        if kind.removeprefix("list[").removesuffix("]") not in TYPES:
            raise ValueError(f"Parameter {name} has no type that a profile can give. {hint}")
    for name, value in section.items():
        if name not in known:
            raise ValueError(f"Unknown parameter {name!r}. {hint}")
        if not has_type(value, known[name]):
            raise ValueError(
                f"Parameter {name} is {known[name]}, not {value!r}.{_yaml(value)} {hint}"
            )


def _yaml(value: Any) -> str:
    """A word on numbers such as 4e-4, which YAML reads as text."""
    try:
        number = float(value) if isinstance(value, str) else None
    except ValueError:
        return ""
    return "" if number is None else " (YAML reads it as text; a number has a point: 4.0e-4)"


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
    if "IBCORE_DATA" in os.environ:
        os.environ["IBCORE_DATA"] = str(Path(os.environ["IBCORE_DATA"]).resolve())
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
        profile = load_profile(options.profile) if options.profile else {}
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
