"""What one step of each core path costs in instructions, held against `counts.txt`.

A path is run for so many steps and for twice as many, each under valgrind: what is between them is the steps', without
start and set-up. It is the same on a busy machine, and nearly the same on another one with the same compiler.

    counts.py check      fails when a path costs more than TOLERANCE above what is written down
    counts.py write      writes down what they cost now

Exit status 3: there is no valgrind.
"""

import json
import pathlib
import re
import shutil
import subprocess
import sys

CRATES = ("holdfast-mvcc", "holdfast-watch")
# Enough that what happens now and then (a table grows) is spread over its share of them; fewer of long steps, which
# would take minutes.
STEPS, STEPS_LONG, LONG = 10_000, 200, 50_000
# The compiler's next release, another C library: some percent. What is worth looking at is more.
TOLERANCE = 0.10
TABLE = pathlib.Path(__file__).with_name("counts.txt")


def benches():
    """The programs of the benches, built."""
    command = ["cargo", "bench", "--locked", "--bench", "paths", "--no-run", "--message-format", "json"]
    for crate in CRATES:
        command += ["--package", crate]
    built = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    messages = [json.loads(line) for line in built.splitlines() if line.startswith("{")]
    programs = {m.get("executable") for m in messages if m.get("target", {}).get("name") == "paths"}
    return sorted(program for program in programs if program)


def instructions(program, path, steps):
    """All instructions of a run."""
    command = ["valgrind", "--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null"]
    run = subprocess.run(
        [*command, program, "--steps", str(steps), path], check=True, stderr=subprocess.PIPE, text=True
    )
    return int(re.search(r"I\s+refs:\s+([\d,]+)", run.stderr)[1].replace(",", ""))


def measure():
    """Instructions a step, by path."""
    counts = {}
    for program in benches():
        paths = subprocess.run([program, "--paths"], check=True, stdout=subprocess.PIPE, text=True).stdout.split()
        for path in paths:
            count = a_step(program, path, STEPS_LONG)
            counts[path] = count if count > LONG else a_step(program, path, STEPS)
    return counts


def a_step(program, path, steps):
    """Instructions of one step, over so many."""
    return round((instructions(program, path, 2 * steps) - instructions(program, path, steps)) / steps)


def written():
    """What is written down."""
    lines = TABLE.read_text(encoding="utf-8").splitlines()
    return {name: int(count) for name, count in (line.split() for line in lines if line.strip())}


def complaints(before, now):
    """What is dearer than it was, or not written down, as sentences."""
    for path, count in now.items():
        if path not in before:
            yield f"{path}: {count} instructions a step, not written down yet: scripts/fix counts"
        elif count > before[path] * (1 + TOLERANCE):
            yield f"{path}: {count} instructions a step, {count / before[path]:.2f} times the {before[path]} of before"
    for path in before.keys() - now.keys():
        yield f"{path}: there is no such path any more: scripts/fix counts"


def main():
    """Measures, then checks or writes."""
    if not shutil.which("valgrind"):
        return 3
    now = measure()
    if sys.argv[1:] == ["write"]:
        TABLE.write_text("".join(f"{path} {count}\n" for path, count in now.items()), encoding="utf-8")
        return 0
    before = written()
    for path, count in now.items():
        print(f"{path}: {count} ({count / before.get(path, count):.2f})")
    found = list(complaints(before, now))
    for complaint in found:
        print(complaint, file=sys.stderr)
    return 1 if found else 0


def self_test():
    """The table refuses what it has to."""
    before = {"put": 1000, "gone": 5}
    assert not list(complaints({"put": 1000}, {"put": 1099}))
    assert len(list(complaints(before, {"put": 1101, "new": 1}))) == 3


if __name__ == "__main__":
    self_test()
    sys.exit(main())
