"""Rules for source files that no lint knows: a module opens with its story, and no file outgrows a reader."""

import pathlib
import re
import subprocess
import sys

LINES_MAX = 800

PURE = (
    "crates/holdfast-mvcc/src/",
    "crates/holdfast-index/src/",
    "crates/holdfast-watch/src/",
    "crates/holdfast-bolt/src/",
)

# A pure crate is a function of its input: nothing in it may see the world, or wait for it.
WORLD = re.compile(r"\bstd::(fs|net|thread|env|process)\b|\basync\b|\.await\b|\b(Instant|SystemTime)::")


def rust_files():
    """Rust files that git tracks or would track, in a fixed order."""
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", "*.rs"],
        check=True,
        capture_output=True,
    ).stdout
    paths = {pathlib.Path(name.decode()) for name in listing.split(b"\0") if name}
    return sorted(path for path in paths if path.exists())


def complaints(path, text):
    """What is wrong with one file, as sentences."""
    lines = text.splitlines()
    if not lines or not lines[0].startswith("//!"):
        yield f"{path}:1: does not start with a `//!` line that says what the module is for"
    if len(lines) > LINES_MAX:
        yield f"{path}: {len(lines)} lines; at most {LINES_MAX}: split it where its concepts part"
    for number, line in enumerate(lines, start=1):
        if line.lstrip().startswith("#[ignore"):
            yield f"{path}:{number}: an ignored test proves nothing; make it a command of its own"


def impurities(path, text):
    """Lines of a pure crate, tests left out, that reach for the world."""
    if not path.as_posix().startswith(PURE) or "tests" in path.stem or "tests" in path.parts:
        return
    for number, line in enumerate(text.splitlines(), start=1):
        if line.startswith("#[cfg(test)]"):
            return
        if WORLD.search(line.split("//", 1)[0]):
            yield f"{path}:{number}: a pure crate may not use this: {line.strip()}"


def judge(paths):
    """All complaints about the files."""
    for path in paths:
        text = path.read_text(encoding="utf-8")
        yield from complaints(path, text)
        yield from impurities(path, text)


def planted():
    """The rules must be able to fail."""
    somewhere = pathlib.Path("crates/holdfast-mvcc/src/planted.rs")
    for text in ["fn main() {}\n", "//! x\n" * (LINES_MAX + 1), "//! x\n#[ignore]\n"]:
        if not list(complaints(somewhere, text)):
            yield f"self-test: let through: {text[:20]!r}"
    for text in ["use std::fs::File;", "async fn now() {}", "let t = Instant::now();"]:
        if not list(impurities(somewhere, text)):
            yield f"self-test: let through: {text!r}"


def main():
    paths = rust_files()
    found = list(planted()) + list(judge(paths))
    for line in found:
        print(line)
    print(f"{len(paths)} Rust files, {len(found)} complaints")
    return 1 if found or not paths else 0


if __name__ == "__main__":
    sys.exit(main())
