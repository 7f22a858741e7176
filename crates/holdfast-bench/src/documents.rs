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
use crate::report::page::{self, Beside, Run};
use crate::report::{self, Round, chart};

/// What comparisons have found, as it is written.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Results {
    /// Where the rounds come from, oldest first.
    runs: Vec<Run>,
    /// Every measurement; all of a case are of one run.
    rounds: Vec<Round>,
}

impl Results {
    /// These and those of this run, on this machine. A case that was measured again is where it was, with nothing left of
    /// what it was: sides are compared within a run.
    pub(crate) fn and(&self, rounds: &[Round]) -> Self {
        let measured = names(rounds.iter().map(|round| round.case.as_str()));
        let older = self.rounds.iter().map(|round| round.case.as_str());
        let all = names(older.chain(measured.iter().copied()));
        let of = |case: &&str| {
            let source = if measured.contains(case) { rounds } else { &self.rounds[..] };
            source.iter().filter(|round| round.case == **case).cloned().collect::<Vec<_>>()
        };
        let mut runs = self.runs.clone();
        for run in &mut runs {
            run.cases.retain(|case| !measured.contains(&case.as_str()));
        }
        runs.retain(|run| !run.cases.is_empty());
        let cases = measured.iter().map(|case| (*case).to_owned()).collect();
        runs.push(Run { machine: procfs::machine(), command: command(), cases });
        Self { runs, rounds: all.iter().flat_map(of).collect() }
    }
}

/// Each once, in the order in which they come first.
fn names<'a>(all: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut found = Vec::new();
    for name in all {
        if !found.contains(&name) {
            found.push(name);
        }
    }
    found
}

/// What an earlier comparison has left, as far as this one is to keep it.
pub(crate) fn kept(flags: &CompareFlags) -> Result<Results, Error> {
    match &flags.json {
        Some(path) if flags.keep && path.exists() => read(path),
        _ => Ok(Results::default()),
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
            "runs": results.runs, "summaries": summaries, "rounds": results.rounds,
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

/// Writes figures under a name, with the machine they are of, if there is a file to write them to.
pub(crate) fn figures(path: Option<&Path>, name: &str, figures: &impl Serialize) -> Result<(), Error> {
    let Some(path) = path else { return Ok(()) };
    write(path, &format!("{:#}\n", serde_json::json!({ "machine": procfs::machine(), name: figures })))
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
    let beside = Beside { growth, pictures: pictures.as_deref() };
    let text = page::render(&results.runs, &results.rounds, beside);
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
        let results = Results::default().and(&rounds);
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
    fn a_case_that_is_measured_again_replaces_what_it_was_and_nothing_else() {
        let of = |case: &str, units| Round { case: case.to_owned(), ..round("holdfast", 1, units) };
        let older = Results::default().and(&[of("put", 1), of("cas", 2)]).and(&[of("mixed", 3)]);
        let newer = older.and(&[of("put", 4), of("list", 5)]);
        let found: Vec<_> = newer.rounds.iter().map(|round| (round.case.as_str(), round.units)).collect();
        assert_eq!(found, [("put", 4), ("cas", 2), ("mixed", 3), ("list", 5)]);
        let cases: Vec<_> = newer.runs.iter().map(|run| run.cases.join(",")).collect();
        assert_eq!(cases, ["cas", "mixed", "put,list"]);
        let last = newer.and(&[of("cas", 6)]);
        assert_eq!(last.runs.len(), 3, "a run of which nothing is left is not named");
    }

    #[test]
    fn pictures_are_where_a_page_can_say_it() {
        let beside = |directory: &str, page: &str| beside(Path::new(directory), Path::new(page));
        assert_eq!(beside("docs/performance", "docs/performance.md").as_deref(), Some("performance/"));
        assert_eq!(beside("/tmp/pictures", "docs/performance.md"), None);
    }
}
