#!/bin/sh
# The smoke study through Slurm, on a cluster of one node that this script brings up.
#
#     sudo apt-get install slurm-wlm munge && sudo sh pipeline/slurm.sh [chapter]
#
# With a chapter, such as "names", only its jobs are run.
# It needs root, for the daemons run as root; it changes /etc/slurm and stops what it started. One
# job is killed midway. At the end it shows that the tables equal those of a local run.
set -eu

cd "$(dirname "$0")/.."
PYTHON="$PWD/.venv/bin/python"
HERE="$PWD/build/slurm"
NODE="$(hostname -s)"
TARGET="${1:+build/smoke/tables/$1/manifest.json}"
TARGET="${TARGET:-tables}"
CORES="$(getconf _NPROCESSORS_ONLN)"
MEMORY="$(awk '/MemTotal/ {print int($2 / 1024 * 0.9)}' /proc/meminfo)"

"$PYTHON" -m pip install --quiet "snakemake-executor-plugin-slurm>=1.9"
mkdir -p "$HERE" /etc/slurm /run/munge /var/spool/slurmd /var/spool/slurmctld
cat > /etc/slurm/slurm.conf <<CONF
ClusterName=one
SlurmctldHost=$NODE
SlurmUser=root
AuthType=auth/munge
StateSaveLocation=/var/spool/slurmctld
SlurmdSpoolDir=/var/spool/slurmd
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
ReturnToService=2
SlurmctldLogFile=$HERE/slurmctld.log
SlurmdLogFile=$HERE/slurmd.log
NodeName=$NODE CPUs=$CORES RealMemory=$MEMORY State=UNKNOWN
PartitionName=study Nodes=ALL Default=YES MaxTime=INFINITE State=UP
CONF

put_back() { # what was there before
    if [ -d build/jobs.local ]; then rm -rf build/jobs && mv build/jobs.local build/jobs; fi
    if [ -d build/smoke.local ]; then rm -rf build/smoke && mv build/smoke.local build/smoke; fi
}
stop() { # what was started
    put_back
    pkill slurmd || true
    pkill slurmctld || true
    pkill munged || true
}
trap stop EXIT
[ -f /etc/munge/munge.key ] || mungekey --create
chown -R munge: /etc/munge /run/munge /var/log/munge /var/lib/munge
pgrep munged > /dev/null || su -s /bin/sh munge -c munged || munged --force
pgrep slurmctld > /dev/null || slurmctld
pgrep slurmd > /dev/null || slurmd
sleep 3
scontrol update NodeName="$NODE" State=RESUME 2> /dev/null || true
sinfo

through_slurm() {
    XDG_CACHE_HOME="$PWD/.snakemake/cache" "$PYTHON" -m snakemake "$TARGET" --config profile=smoke \
        --quiet rules --executor slurm --jobs "$CORES" --rerun-incomplete --nolock \
        --default-resources slurm_partition=study mem_mb=2000 runtime=30 cpus_per_task=1 \
        --slurm-no-account --slurm-status-command squeue \
        --slurm-init-seconds-before-status-checks 5
}

# A store of jobs of its own, so that nothing local is taken for it.
put_back
[ -d build/jobs ] && mv build/jobs build/jobs.local
[ -d build/smoke ] && mv build/smoke build/smoke.local
through_slurm > "$HERE/first.log" 2>&1 &
FIRST=$!
until squeue -h -t RUNNING -o %i | grep -q .; do
    kill -0 "$FIRST" 2> /dev/null || { tail -30 "$HERE/first.log"; exit 1; }
    sleep 1
done
sleep 5
VICTIM="$(squeue -h -t RUNNING -o %i | head -1)"
echo "killing job $VICTIM of $(squeue -h -o %i | wc -l) in the queue"
scancel --signal=KILL "$VICTIM"
wait "$FIRST" && echo "Snakemake went on" || echo "Snakemake said that a job failed; the same again:"
through_slurm > "$HERE/second.log" 2>&1 || { tail -30 "$HERE/second.log"; exit 1; }

rm -rf "$HERE/tables" "$HERE/jobs"
mv build/smoke/tables "$HERE/tables"
mv build/jobs "$HERE/jobs"
put_back
XDG_CACHE_HOME="$PWD/.snakemake/cache" "$PYTHON" -m snakemake "$TARGET" --config profile=smoke \
    --quiet rules --cores "$CORES" --rerun-incomplete --nolock
"$PYTHON" - "$HERE/tables" build/smoke/tables <<'CODE'
import sys
from pathlib import Path

from study.jobs import read_set
from study.verify import differences, tolerance

slurm, local = map(Path, sys.argv[1:])
worst = 0.0
for folder in sorted(local / path.name for path in slurm.iterdir()):
    one, other = read_set(slurm / folder.name)[0], read_set(folder)[0]
    assert one.keys() == other.keys(), folder
    for name, table in other.items():
        for _, row in differences(one[name], table).iterrows():
            if tolerance(row["column"])[0] < float("inf"):  # else the machine's, such as seconds
                worst = max(worst, row["largest"])
    print(f"{folder.name}: {len(other)} tables, {sum(map(len, other.values()))} rows")
print(f"largest difference between Slurm's tables and the local ones: {worst:g}")
sys.exit(worst > 0)
CODE
