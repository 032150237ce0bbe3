"""Replays traffic on a Dask cluster, and reports on it as `guardrail check` does on one machine.

    pip install guardrail-engine 'dask[distributed]'
    python replay.py policies/ day-1.jsonl day-2.jsonl …                  two processes here
    python replay.py policies/ day-*.jsonl --scheduler tcp://host:8786    a cluster that there is

The files are one traffic, in the order of their times, and every worker can read them under the
same paths. First each file is looked at by itself, for what ties accounts together. What was found
is merged and says which accounts belong together; then each task replays one part of the accounts,
over all files. The results are merged, and are those of one process, byte for byte.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

import dask
from distributed import Client, LocalCluster

from guardrail.loading import load_policies
from guardrail.replay.parts import Job, found_in, replayed_part
from guardrail.replay.results import ShardFile
from guardrail.replay.ties import Found, parts_of


def replay(client: Client, policies: list[str], traffic: list[str], parts: int) -> list[ShardFile]:
    """Replay traffic in so many parts on a cluster; return the parts."""
    loaded = load_policies(list(policies))
    paths = tuple(str(Path(path).resolve()) for path in policies)

    def job(files: list[str]) -> Job:
        return Job(
            policies=paths,
            revision=loaded.revision,
            traffic=tuple(str(Path(path).resolve()) for path in files),
        )

    found = Found()
    for looked in client.gather([client.submit(found_in, job([file])) for file in traffic]):
        found.merge(looked)
    divided = client.scatter(parts_of(found, loaded, parts), broadcast=True)
    whole = job(traffic)
    runs = client.gather(
        [client.submit(replayed_part, whole, divided, part) for part in range(parts)]
    )
    return [
        ShardFile(
            shard=number,
            count=parts,
            policies=tuple(policies),
            revision=loaded.revision,
            traffic=tuple(traffic),
            run=run,
        )
        for number, run in enumerate(runs, 1)
    ]


def main() -> int:
    """Read the command line, replay, and report."""
    parser = argparse.ArgumentParser(description="Replay traffic on a Dask cluster.")
    parser.add_argument("policies", help="a policy file, or a folder of them")
    parser.add_argument("traffic", nargs="+", help="traffic files, in the order of their times")
    parser.add_argument("--scheduler", help="of a cluster that there is, else two processes here")
    parser.add_argument("--parts", type=int, default=2, help="how many parts, one a worker at best")
    parser.add_argument("--format", default="full", help="as `guardrail merge` takes it")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, ExitStack() as closing:
        closing.enter_context(dask.config.set({"temporary-directory": folder}))
        cluster = asked.scheduler
        if cluster is None:
            made = LocalCluster(
                n_workers=2, threads_per_worker=1, dashboard_address=None, local_directory=folder
            )
            cluster = closing.enter_context(made)
        client = closing.enter_context(Client(cluster))
        names = []
        for shard in replay(client, [asked.policies], asked.traffic, asked.parts):
            names.append(str(Path(folder) / f"part-{shard.shard}"))
            shard.write(names[-1])
        merging = [sys.executable, "-m", "guardrail", "merge", *names, "--format", asked.format]
        return subprocess.run(merging, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
