//! The timeline as one HTML file without anything from elsewhere: calls by second, faults, leaders, findings.

use std::fmt::Write as _;
use std::time::Duration;

use super::book::Tally;
use super::report::Report;
use crate::nemesis::FAULTS;

/// Width and height of the picture's parts, in pixels.
const WIDTH: f64 = 1_400.0;
const LEFT: f64 = 120.0;
const CALLS: f64 = 220.0;
const ROW: f64 = 14.0;

/// The colours of members.
const COLOURS: [&str; 7] = ["#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#bbbbbb"];

/// The colours of calls: ok, failed, unknown.
const OK: &str = "#88bb88";
const FAILED: &str = "#ddaa55";
const UNKNOWN: &str = "#cc4444";

impl Report {
    /// The timeline.
    pub fn html(&self) -> String {
        let mut picture = Picture { report: self, svg: String::new() };
        let height = picture.draw();
        let page = escape(&self.to_string());
        let title = format!("{} {}: {} findings", self.system, self.version, self.findings.len());
        let mut findings = String::new();
        for finding in &self.findings {
            let at = finding.at.map_or_else(String::new, |at| format!(" at {:.1} s", at.as_secs_f64()));
            append(
                &mut findings,
                format_args!("<li><b>{}</b>{at}: {}</li>\n", finding.judge, escape(&finding.text)),
            );
        }
        format!(
            "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\"><title>{title}</title>\n\
             <style>body{{font:13px sans-serif;margin:1em}}text{{font:10px sans-serif}}pre{{font-size:12px}}</style>\n\
             <h1>{title}</h1>\n<svg width=\"{width}\" height=\"{height}\" xmlns=\"http://www.w3.org/2000/svg\">\n{svg}</svg>\n\
             <ul>\n{findings}</ul>\n<pre>{page}</pre>\n</html>\n",
            width = WIDTH + LEFT + 20.0,
            svg = picture.svg,
        )
    }
}

struct Picture<'a> {
    report: &'a Report,
    svg: String,
}

impl Picture<'_> {
    /// Draws everything; the height.
    fn draw(&mut self) -> f64 {
        self.calls();
        let mut y = CALLS + 30.0;
        y = self.leaders(y);
        for (fault, _, name, _) in &FAULTS {
            if !self.report.incidents.iter().any(|incident| incident.fault == *fault) {
                continue;
            }
            self.text(4.0, y + 10.0, name);
            for incident in self.report.incidents.iter().filter(|incident| incident.fault == *fault) {
                let title = incident.to_string();
                self.bar(incident.began, incident.mended, y, "#884444", &title);
                self.bar(incident.mended, incident.served, y, "#ddaaaa", &title);
            }
            y += ROW;
        }
        for finding in &self.report.findings {
            if let Some(at) = finding.at {
                let x = self.x(at);
                let title = escape(&finding.text);
                append(
                    &mut self.svg,
                    format_args!(
                        "<line x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"0\" y2=\"{y:.0}\" stroke=\"red\"><title>{title}</title></line>\n"
                    ),
                );
            }
        }
        self.axis(y);
        y + 30.0
    }

    fn end(&self) -> f64 {
        (self.report.seconds.len() as f64).max(self.report.lasted.as_secs_f64()).max(1.0)
    }

    fn x(&self, at: Duration) -> f64 {
        LEFT + at.as_secs_f64() / self.end() * WIDTH
    }

    fn text(&mut self, x: f64, y: f64, text: &str) {
        append(&mut self.svg, format_args!("<text x=\"{x:.1}\" y=\"{y:.1}\">{}</text>\n", escape(text)));
    }

    fn bar(&mut self, from: Duration, to: Duration, y: f64, colour: &str, title: &str) {
        let (x, width) = (self.x(from), (self.x(to) - self.x(from)).max(1.0));
        let (height, title) = (ROW - 3.0, escape(title));
        append(
            &mut self.svg,
            format_args!(
                "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.0}\" fill=\"{colour}\"><title>{title}</title></rect>\n"
            ),
        );
    }

    /// Calls by second, one on top of the other.
    fn calls(&mut self) {
        let most = self.report.seconds.iter().map(Tally::all).max().unwrap_or(1).max(1) as f64;
        let width = (WIDTH / self.end()).max(0.5);
        self.text(4.0, 12.0, &format!("{most:.0} calls/s"));
        for (colour, y, name) in [(OK, 40.0, "ok"), (FAILED, 54.0, "failed"), (UNKNOWN, 68.0, "unknown")] {
            append(
                &mut self.svg,
                format_args!("<rect x=\"4\" y=\"{y}\" width=\"10\" height=\"10\" fill=\"{colour}\"/>\n"),
            );
            self.text(18.0, y + 9.0, name);
        }
        for (second, tally) in self.report.seconds.iter().enumerate() {
            let x = LEFT + second as f64 / self.end() * WIDTH;
            let mut y = CALLS;
            for (count, colour) in [(tally.ok, OK), (tally.failed, FAILED), (tally.unknown, UNKNOWN)] {
                let height = count as f64 / most * (CALLS - 10.0);
                y -= height;
                if height > 0.0 {
                    append(
                        &mut self.svg,
                        format_args!(
                            "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" fill=\"{colour}\"/>\n"
                        ),
                    );
                }
            }
        }
    }

    fn leaders(&mut self, y: f64) -> f64 {
        self.text(4.0, y + 10.0, "leader");
        let leaders = self.report.leaders.clone();
        for (place, (from, leader)) in leaders.iter().enumerate() {
            let to = leaders.get(place + 1).map_or(self.report.lasted, |(to, _)| *to);
            if let Some(leader) = leader {
                self.bar(*from, to, y, COLOURS[leader % COLOURS.len()], &format!("n{} leads", leader + 1));
            }
        }
        y + ROW + 6.0
    }

    fn axis(&mut self, y: f64) {
        let step = (self.end() / 20.0).ceil().max(1.0);
        let mut at = 0.0;
        while at <= self.end() {
            let x = LEFT + at / self.end() * WIDTH;
            self.text(x, y + 20.0, &format!("{at:.0} s"));
            at += step;
        }
    }
}

fn append(text: &mut String, more: std::fmt::Arguments<'_>) {
    text.write_fmt(more).expect("a string takes everything");
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
