//! The files that measurements leave behind, and reading them again.

use std::path::Path;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::cli::{CompareFlags, PageFlags};
use crate::error::Error;
use crate::growth::curve::Growth;
use crate::growth::flags::GrowthFlags;
use crate::growth::report as curve_report;
use crate::measure::procfs;
use crate::report::page::{self, Beside, Origin};
use crate::report::{self, Round, chart};

/// What a comparison has found, as it is written.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Results {
    /// CPU, memory, kernel.
    machine: String,
    /// What was run.
    command: String,
    /// Every measurement.
    pub(crate) rounds: Vec<Round>,
}

impl Results {
    /// Of this run, on this machine.
    pub(crate) fn of(rounds: Vec<Round>) -> Self {
        Self { machine: procfs::machine(), command: command(), rounds }
    }
}

/// Curves of this run, on this machine.
pub(crate) fn signed(growth: Growth) -> Growth {
    Growth { machine: procfs::machine(), command: command(), ..growth }
}

fn command() -> String {
    let words: Vec<String> =
        ["holdfast-bench".to_owned()].into_iter().chain(std::env::args().skip(1)).collect();
    words.join(" ")
}

/// Writes what a comparison was asked to write.
pub(crate) fn comparison(flags: &CompareFlags, results: &Results) -> Result<(), Error> {
    let summaries = report::summaries(&results.rounds);
    if let Some(path) = &flags.json {
        let report = serde_json::json!({
            "machine": results.machine, "command": results.command,
            "summaries": summaries, "rounds": results.rounds,
        });
        write(path, &format!("{report:#}\n"))?;
    }
    if let Some(directory) = &flags.svg {
        report::svg::write(directory, &summaries)?;
    }
    let Some(page) = &flags.page else { return Ok(()) };
    let growth: Option<Growth> = flags.growth.as_deref().map(read).transpose()?;
    if let (Some(growth), Some(directory)) = (&growth, &flags.svg) {
        chart::write(directory, &growth.curves)?;
    }
    write_page(page, results, growth.as_ref(), flags.svg.as_deref())
}

/// Writes what curves were asked to write.
pub(crate) fn curves(flags: &GrowthFlags, growth: &Growth) -> Result<(), Error> {
    if let Some(path) = &flags.json {
        let report = serde_json::json!(growth);
        write(path, &format!("{report:#}\n"))?;
    }
    if let Some(path) = &flags.section {
        let pictures = flags.svg.as_deref().and_then(|svg| beside(svg, path));
        write(path, &curve_report::render(growth, pictures.as_deref()))?;
    }
    if let Some(directory) = &flags.svg {
        chart::write(directory, &growth.curves)?;
    }
    Ok(())
}

/// Makes a page of files.
pub(crate) fn page(flags: &PageFlags) -> Result<(), Error> {
    let results: Results = read(&flags.results)?;
    let growth: Option<Growth> = flags.growth.as_deref().map(read).transpose()?;
    if let (Some(growth), Some(directory)) = (&growth, &flags.svg) {
        chart::write(directory, &growth.curves)?;
    }
    write_page(&flags.page, &results, growth.as_ref(), flags.svg.as_deref())
}

fn write_page(
    path: &Path,
    results: &Results,
    growth: Option<&Growth>,
    svg: Option<&Path>,
) -> Result<(), Error> {
    let pictures = svg.and_then(|svg| beside(svg, path));
    let origin = Origin { machine: &results.machine, command: &results.command };
    let text = page::render(origin, &results.rounds, Beside { growth, pictures: pictures.as_deref() });
    write(path, &text)
}

/// A directory as a page says it, if it lies below the page's own.
fn beside(directory: &Path, page: &Path) -> Option<String> {
    let below = directory.strip_prefix(page.parent()?).ok()?;
    Some(format!("{}/", below.display()))
}

fn write(path: &Path, text: &str) -> Result<(), Error> {
    std::fs::write(path, text).map_err(Error::io(format!("write {}", path.display())))
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<T, Error> {
    let text = std::fs::read(path).map_err(Error::io(format!("read {}", path.display())))?;
    serde_json::from_slice(&text)
        .map_err(|error| Error::Setting(format!("{} is not what it should be: {error}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::round;

    #[test]
    fn a_page_is_made_of_files_and_older_ones_are_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let rounds = vec![round("holdfast", 1, 3000), round("etcd", 1, 1000)];
        let results = Results { rounds, ..Results::default() };
        let mut json = serde_json::json!(results);
        // What an older program has not written.
        json["rounds"][0].as_object_mut().unwrap().remove("lists");
        write(&path("results.json"), &json.to_string()).unwrap();
        write(&path("growth.json"), &serde_json::json!(Growth::default()).to_string()).unwrap();
        let flags = PageFlags {
            results: path("results.json"),
            growth: Some(path("growth.json")),
            svg: Some(path("pictures")),
            page: path("page.md"),
        };
        page(&flags).unwrap();
        let text = std::fs::read_to_string(path("page.md")).unwrap();
        assert!(text.contains("| `put` | per second | at least 2.7 times etcd's | 3.00 | met |"), "{text}");
        assert!(text.contains("## Growth"), "{text}");
        let error = page(&PageFlags { results: path("page.md"), ..flags }).unwrap_err();
        assert!(error.to_string().contains("page.md is not what it should be"), "{error}");
    }

    #[test]
    fn pictures_are_where_a_page_can_say_it() {
        let beside = |directory: &str, page: &str| beside(Path::new(directory), Path::new(page));
        assert_eq!(beside("docs/performance", "docs/performance.md").as_deref(), Some("performance/"));
        assert_eq!(beside("/tmp/pictures", "docs/performance.md"), None);
    }
}
