"""What `warmline serve` does to its process."""

import subprocess
import sys

SPARED = """
import gc
from warmline_cli.serve import spare_the_collector

before = len(gc.get_objects())
spare_the_collector()
visited = len(gc.get_objects())
collections = gc.get_stats()[2]["collections"]
kept = [[] for _ in range(300_000)]
print(before, visited, gc.get_stats()[2]["collections"] - collections)
"""


def test_full_collections_are_rare_and_do_not_visit_what_the_start_made() -> None:
    ended = subprocess.run([sys.executable, "-c", SPARED], capture_output=True, text=True, check=True, timeout=60)
    before, visited, collections = map(int, ended.stdout.split())

    assert before > 20_000, "otherwise nothing was put to the test"
    assert visited < before / 20
    assert collections == 0
