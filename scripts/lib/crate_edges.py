"""Who may depend on whom: the drawing of the house, as a table, held against `cargo metadata`.

An edge that is not in a table fails the check. Normal and build dependencies follow INNER and ONLY_NAMED_BY;
dev-dependencies may add the edges of DEV, and nothing else.
"""

import json
import subprocess
import sys

PURE = {"holdfast-mvcc", "holdfast-index", "holdfast-watch", "holdfast-bolt"}

# Edges between our own crates. Arrows go down only: edge, consensus, bytes, pure, ground.
INNER = {
    # ground
    "holdfast-env": set(),
    "holdfast-proto": set(),
    "holdfast-tls": set(),
    # stands in for a dependency of openraft
    "base2histogram": set(),
    # pure
    "holdfast-mvcc": set(),
    "holdfast-bolt": set(),
    "holdfast-index": {"holdfast-mvcc"},
    "holdfast-watch": {"holdfast-mvcc"},
    # bytes
    "holdfast-log": {"holdfast-env"},
    "holdfast-storage": {"holdfast-env", "holdfast-mvcc", "holdfast-index", "holdfast-watch"},
    # consensus
    "holdfast-raft": {
        "holdfast-env",
        "holdfast-proto",
        "holdfast-tls",
        "holdfast-mvcc",
        "holdfast-log",
        "holdfast-storage",
    },
    # edge
    "holdfast-server": {
        "holdfast-env",
        "holdfast-proto",
        "holdfast-tls",
        "holdfast-mvcc",
        "holdfast-index",
        "holdfast-watch",
        "holdfast-bolt",
        "holdfast-storage",
        "holdfast-raft",
    },
    "holdfast-client": {"holdfast-proto", "holdfast-tls"},
    # what a snapshot holds, and how a member's data directory is made, is written once: in the server
    "holdfast-ctl": {"holdfast-env", "holdfast-proto", "holdfast-tls", "holdfast-client", "holdfast-server"},
    "holdfast-bench": {"holdfast-proto", "holdfast-client"},
    "holdfast-testserver": {"holdfast-proto", "holdfast-server"},
    # what benches of core paths share
    "holdfast-paths": set(),
    # beside the house: the simulator runs the real crates, the oracle shares no code with what it judges
    "holdfast-sim": {
        "holdfast-env",
        "holdfast-mvcc",
        "holdfast-log",
        "holdfast-storage",
        "holdfast-raft",
        "holdfast-server",
    },
    "cluster-tests": {"holdfast-proto"},
}

# What tests alone may use on top of INNER. The simulated world serves the tests of whoever runs on a world.
DEV = {
    "holdfast-mvcc": {"holdfast-paths"},
    "holdfast-watch": {"holdfast-paths"},
    "holdfast-log": {"holdfast-sim"},
    "holdfast-storage": {"holdfast-sim"},
    "holdfast-raft": {"holdfast-sim"},
    # The client is a peer of the server: its tests alone may have it.
    "holdfast-server": {"holdfast-sim", "holdfast-testserver", "holdfast-client"},
    "holdfast-client": {"holdfast-testserver"},
    "holdfast-ctl": {"holdfast-testserver"},
    "holdfast-bench": {"holdfast-testserver"},
}

_WIRE = {
    "holdfast-proto",
    "holdfast-raft",
    "holdfast-server",
    "holdfast-client",
    "holdfast-ctl",
    "holdfast-bench",
    "holdfast-testserver",
    "cluster-tests",
}

# Parts that may be named, in any kind of dependency, by these crates alone.
ONLY_NAMED_BY = {
    "openraft": {"holdfast-raft"},
    "openraft-rt": {"holdfast-raft"},
    "openraft-rt-tokio": {"holdfast-raft"},
    "sled": {"holdfast-storage"},
    "redb": {"holdfast-storage"},
    "bincode": {"holdfast-storage"},
    "tonic": _WIRE,
    "tonic-prost": _WIRE,
    "tonic-prost-build": {"holdfast-proto"},
    # The server answers health checks, holdfastctl asks for one.
    "tonic-health": {"holdfast-server", "holdfast-ctl"},
    "tonic-reflection": {"holdfast-server"},
    "prost": _WIRE,
    "prost-types": _WIRE,
    "protox": {"holdfast-proto"},
    # One place decides how TLS is spoken, and with which provider of cryptography.
    "rustls": {"holdfast-tls"},
    "tokio-rustls": {"holdfast-tls"},
    "rustls-native-certs": {"holdfast-tls"},
}

# A pure crate's normal dependencies: data structures, checksums, error derives. No world of any kind.
PURE_MAY_NAME = {"bytes", "thiserror", "crc32c"}


def metadata():
    command = ["cargo", "metadata", "--locked", "--format-version", "1", "--no-deps"]
    return json.loads(subprocess.run(command, check=True, capture_output=True).stdout)


def edges(package):
    """(name, kind) of each dependency; kind is 'normal', 'build' or 'dev'."""
    return sorted({(d["name"], d["kind"] or "normal") for d in package["dependencies"]})


def complaint(package, name, kind, members):
    """Why this edge is not allowed, or None."""
    if name in members:
        allowed = INNER[package] | (DEV.get(package, set()) if kind == "dev" else set())
        return None if name in allowed else "is not an edge of the house"
    if name in ONLY_NAMED_BY and package not in ONLY_NAMED_BY[name]:
        return "may only be named by " + ", ".join(sorted(ONLY_NAMED_BY[name]))
    if package in PURE and kind != "dev" and name not in PURE_MAY_NAME:
        return "is no dependency of a pure crate"
    return None


def judge(packages):
    """All complaints about a list of packages as `cargo metadata` prints them."""
    members = {package["name"] for package in packages}
    for package in packages:
        owner = package["name"]
        if owner not in INNER:
            yield f"{owner}: a crate that is not in the table; decide where it stands in scripts/lib/crate_edges.py"
            continue
        for name, kind in edges(package):
            why = complaint(owner, name, kind, members)
            if why:
                yield f"{owner} -> {name} ({kind}): {why}"


def planted():
    """The check must be able to fail: one forbidden edge of each sort, and what it has to say about it."""
    def package(name, *dependencies):
        return {"name": name, "dependencies": [{"name": n, "kind": k} for n, k in dependencies]}

    base = [package(name) for name in INNER]
    for owner, name, kind in [
        ("holdfast-mvcc", "holdfast-env", None),
        ("holdfast-log", "holdfast-storage", None),
        ("holdfast-server", "openraft", None),
        ("holdfast-server", "sled", "dev"),
        ("holdfast-log", "tonic", "build"),
        ("cluster-tests", "holdfast-client", "dev"),
        ("holdfast-watch", "tokio", None),
        ("stranger", "bytes", None),
    ]:
        packages = [p for p in base if p["name"] != owner] + [package(owner, (name, kind))]
        if not list(judge(packages)):
            yield f"self-test: {owner} -> {name} was let through"


def main():
    packages = metadata()["packages"]
    found = list(planted()) + list(judge(packages))
    for line in found:
        print(line)
    count = sum(len(edges(package)) for package in packages)
    print(f"{len(packages)} crates, {count} edges, {len(found)} complaints")
    return 1 if found or not packages else 0


if __name__ == "__main__":
    sys.exit(main())
