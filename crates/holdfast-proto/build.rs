//! Compiles every `.proto` below the workspace's `proto/` with protox, so that no machine needs protoc.
//!
//! Writes one Rust file per proto package and `descriptors.bin`, the encoded `FileDescriptorSet` without source
//! positions, into `OUT_DIR`. Files are taken in sorted order: the output does not depend on the disk.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

use prost::Message;

fn main() -> Result<(), Box<dyn Error>> {
    // Not `env!`: a target directory that two checkouts share has one build script for both.
    let package = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").ok_or("cargo sets CARGO_MANIFEST_DIR")?);
    let root = package.join("../../proto").canonicalize()?;
    let out_dir = PathBuf::from(env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR for build scripts")?);
    // Cargo looks at a directory's files too, so that a new .proto is seen without a change here.
    cargo_says(&format!("rerun-if-changed={}", root.display()));
    cargo_says("rerun-if-changed=build.rs");

    let mut files = Vec::new();
    collect_protos(&root, &mut files)?;
    files.sort();

    let mut compiler = protox::Compiler::new([&root])?;
    compiler.include_source_info(true).include_imports(true).open_files(&files)?;
    let set = compiler.file_descriptor_set();

    let mut bare = set.clone();
    bare.file.iter_mut().for_each(|file| file.source_code_info = None);
    fs::write(out_dir.join("descriptors.bin"), bare.encode_to_vec())?;

    tonic_prost_build::configure()
        .bytes(".")
        .codec_path("crate::codec::Codec")
        .out_dir(&out_dir)
        .compile_fds(set)?;
    Ok(())
}

fn cargo_says(line: &str) {
    println!("cargo:{line}");
}

fn collect_protos(dir: &Path, found: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            collect_protos(&path, found)?;
        } else if path.extension().is_some_and(|extension| extension == "proto") {
            found.push(path);
        }
    }
    Ok(())
}
