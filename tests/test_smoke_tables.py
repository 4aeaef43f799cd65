"""Jobs of the short form, one of each sort, find again the numbers of tests/reference/tables."""

import json
from contextlib import nullcontext

import pytest

from ibcore.threads import one_thread
from study import jobs, settings, verify
from study.closure import ROOT
from study.jobs import MANIFEST

pytestmark = pytest.mark.slow  # trainings, if short ones

TABLES = ROOT / "tests" / "reference" / "tables"
PROFILE = settings.PROFILES / "smoke.yml"


def planned(chapter):
    return jobs.plan(chapter, settings.profile(chapter, PROFILE))


def first_seeds(chapter):
    """One job of those that differ by nothing but their seeds."""
    found = {}
    for job in planned(chapter):
        alike = {k: v for k, v in job.arguments.items() if k not in ("seed", "seeds", "dear")}
        found.setdefault(json.dumps(alike, sort_keys=True), job.id)
    return found.values()


JOBS = [(chapter, name) for chapter in settings.CHAPTERS for name in first_seeds(chapter)]


@pytest.mark.parametrize("chapter", settings.CHAPTERS)
def test_the_committed_tables_are_those_of_the_profile_and_its_sources(chapter):
    facts = jobs.read_set(TABLES / chapter)[1]
    held = {name: job["arguments"] for name, job in facts["jobs"].items()}
    assert held == {job.id: job.arguments for job in planned(chapter)}
    # Other sources that find the same numbers are told by `python -m study.verify`.
    assert not verify.is_stale(TABLES / chapter), f"make reference renews {TABLES / chapter}"


@pytest.mark.parametrize(("chapter", "name"), JOBS)
def test_a_job_finds_the_committed_numbers(chapter, name):
    # Every other job with all threads; the rest with one, as jobs are made.
    many = JOBS.index((chapter, name)) % 2
    with nullcontext() if many else one_thread():
        found = verify.again(TABLES / chapter, name)
    worst = found.loc[found["share"].idxmax()]
    assert worst["share"] <= 1, worst.to_dict()


def test_every_committed_set_is_that_of_a_chapter():
    held = {path.parent.name for path in TABLES.glob(f"*/{MANIFEST}")}
    assert held == set(settings.CHAPTERS)
