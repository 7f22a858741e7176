//! What the SDK costs, as tables.

use super::calls::What;
use super::{Call, Found, Synced, Through};
use crate::report::median;
use crate::report::table::aligned;

/// One line of progress.
pub(super) fn call_line(call: &Call) -> String {
    format!(
        "round {} {} through the {}: {} in {:.1?}, {:.2} us of CPU here each",
        call.round,
        name(call.what),
        through(call.through),
        call.calls,
        call.took,
        call.cpu_us()
    )
}

/// One line of progress.
pub(super) fn sync_line(synced: &Synced) -> String {
    let memory =
        synced.bytes_each.map_or(String::new(), |bytes| format!(", {bytes:.0} bytes each beside itself"));
    format!("round {} {}: {} in {:.2?}{memory}", synced.round, synced.how, synced.objects, synced.took)
}

/// The tables.
pub(crate) fn render(found: &Found) -> String {
    let head = ["call", "CPU us, stub", "CPU us, SDK", "ratio"];
    let mut calls = vec![head.map(str::to_owned).to_vec()];
    for what in [What::Put, What::Get] {
        let of = |through| {
            let same = found.calls.iter().filter(|call| call.what == what && call.through == through);
            same.map(Call::cpu_us).collect::<Vec<f64>>()
        };
        let (stub, sdk) = (of(Through::Stub), of(Through::Sdk));
        let ratios = stub.iter().zip(&sdk).map(|(stub, sdk)| sdk / stub).collect();
        let cells = [median(stub), median(sdk), median(ratios)].map(|figure| format!("{figure:.2}"));
        calls.push([name(what).to_owned()].into_iter().chain(cells).collect());
    }
    let mut text = aligned(calls);
    if found.synced.is_empty() {
        return text;
    }
    let head = ["everything", "objects", "seconds", "CPU s here", "bytes each beside itself"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for how in ["informer, holdfast", "pages, etcd"] {
        let same = || found.synced.iter().filter(|synced| synced.how == how);
        let Some(first) = same().next() else { continue };
        rows.push(vec![
            how.to_owned(),
            first.objects.to_string(),
            format!("{:.2}", median(same().map(|synced| synced.took.as_secs_f64()).collect())),
            format!("{:.2}", median(same().map(|synced| synced.cpu.as_secs_f64()).collect())),
            first.bytes_each.map_or("-".to_owned(), |bytes| format!("{bytes:.0}")),
        ]);
    }
    text.push('\n');
    text.push_str(&aligned(rows));
    text
}

fn name(what: What) -> &'static str {
    match what {
        What::Put => "put",
        What::Get => "get",
    }
}

fn through(through: Through) -> &'static str {
    match through {
        Through::Stub => "stub",
        Through::Sdk => "SDK",
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn ratios_are_of_one_round_and_medians_of_all() {
        let call = |through, round, cpu| Call {
            what: What::Put,
            through,
            round,
            calls: 1000,
            took: Duration::from_secs(1),
            cpu: Duration::from_millis(cpu),
        };
        let calls = vec![
            call(Through::Stub, 1, 10),
            call(Through::Sdk, 1, 11),
            call(Through::Sdk, 2, 40),
            call(Through::Stub, 2, 20),
            call(Through::Stub, 3, 30),
            call(Through::Sdk, 3, 33),
        ];
        let synced = |how, seconds, bytes_each| Synced {
            how,
            round: 1,
            objects: 7,
            took: Duration::from_secs(seconds),
            cpu: Duration::ZERO,
            bytes_each,
        };
        let synced = vec![synced("informer, holdfast", 2, Some(99.6)), synced("pages, etcd", 8, None)];
        let text = render(&Found { calls, synced });
        for line in [
            "| put  |        20.00 |       33.00 |  1.10 |",
            "| informer, holdfast |       7 |    2.00 |       0.00 |                      100 |",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
    }
}
