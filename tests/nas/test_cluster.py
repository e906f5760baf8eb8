"""A search on two Ray nodes on this machine, one of which is killed meanwhile."""

import json

import helpers
import pytest

from analysis.records.load import load_records
from trials.record import Status

# Starts a cluster on loopback and a search on it, kills the second node as soon as both have
# trained, and finally ends all its processes, by pid.
TWO_NODES = """
import os, signal, subprocess, sys, time
from contextlib import suppress
from pathlib import Path
import trials.compute.cluster  # sets what Ray reads when it starts
from ray.cluster_utils import Cluster

quiet = {"num_cpus": 1, "include_dashboard": False, "node_ip_address": "127.0.0.1"}
cluster = Cluster(initialize_head=True, head_node_args=quiet)
second = cluster.add_node(num_cpus=1, node_ip_address="127.0.0.1")
search = subprocess.Popen([*TOY_SEARCH, *sys.argv[1:], "--address", cluster.address])
try:
    while search.poll() is None and len(list(Path("runs").glob("*/trials/*/last.pt"))) < 2:
        time.sleep(0.1)
    node = second.all_processes["raylet"][0].process.pid
    workers = subprocess.run(["ps", "-o", "pid=", "--ppid", str(node)], capture_output=True,
                             text=True).stdout.split()
    for pid in (node, *map(int, workers)):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    print("killed the second node", flush=True)
    code = search.wait(timeout=900)
finally:
    if search.poll() is None:
        search.kill()
        search.wait()
    cluster.shutdown()
sys.exit(code)
"""


@pytest.mark.slow
def test_a_search_completes_although_one_of_two_nodes_dies(start, tiny_space, tmp_path):
    (tmp_path / "two_nodes.py").write_text(f"TOY_SEARCH = {helpers.toy_search()!r}\n{TWO_NODES}")
    process = start(
        "two_nodes",
        "--space",
        "tiny.yaml",
        "--data",
        "synthetic",
        "--fraction",
        "0.2",
        "--trials",
        "5",
        "--study",
        "one",
        "--tracking-uri",
        "none",
        "--json",
        "r.json",
    )
    out, err = process.communicate(timeout=1000)
    assert process.returncode == 0, err
    assert "killed the second node" in out
    records = load_records(tmp_path / "runs" / "one")
    assert [r.number for r in records] == list(range(6))
    assert all(r.status in (Status.COMPLETED, Status.PRUNED) for r in records)
    assert all([e.epoch for e in r.epochs] == list(range(1, len(r.epochs) + 1)) for r in records)
    assert sum(r.notes.get("nodes_lost", 0) for r in records) <= 1  # it had one core
    assert sum(r.retries for r in records) == 0
    assert json.loads((tmp_path / "r.json").read_text())["best"]
    assert not list((tmp_path / "runs" / "one").glob("tune-*"))
