//! What people read of the table: a flag's line in `--help`, and `docs/flags.md`.

use std::fmt::Write;

use super::table::{Flag, Origin, SECTIONS, Section, Treatment};

/// How the file is made, as it says itself.
const COMMAND: &str = "cargo run -p holdfast-server -- flags > docs/flags.md";

/// A flag's line in `--help`.
pub(super) fn line(does: &str, default: &str) -> String {
    if default.is_empty() { does.to_owned() } else { format!("{does} [default: {default}]") }
}

/// The end of `--help`: the flags that are taken without effect, and those that are refused.
pub(super) fn without_effect() -> String {
    let names = |is_listed: fn(&Treatment) -> bool| {
        let flags = SECTIONS.iter().flat_map(|section| section.flags);
        let names: Vec<_> = flags.filter(|flag| is_listed(&flag.treatment)).map(|flag| flag.name).collect();
        wrapped(&names)
    };
    format!(
        "Flags of etcd that are taken without effect, each with a warning that says why:\n{}\n\n\
         Flags of etcd that are refused, with the reason and the next step:\n{}\n\n\
         `holdfast flags` prints all of them in full.",
        names(|treatment| matches!(treatment, Treatment::WithoutEffect { .. })),
        names(|treatment| matches!(treatment, Treatment::Refused(..))),
    )
}

/// Names in lines of at most a hundred characters.
fn wrapped(names: &[&str]) -> String {
    const WIDTH: usize = 100;
    let mut lines = vec![String::new()];
    for name in names {
        let last = lines.last_mut().expect("there is always a line");
        if last.len() + name.len() + 1 > WIDTH {
            lines.push(format!("  {name}"));
        } else {
            last.push_str(if last.is_empty() { "  " } else { " " });
            last.push_str(name);
        }
    }
    lines.join("\n")
}

/// `docs/flags.md`.
pub fn markdown() -> String {
    let mut page = format!(
        "# Flags\n\n\
         Every flag of a member: those of etcd 3.4 to 3.7, and a few of our own (marked *ours*). Generated from the\n\
         table in `crates/holdfast-server/src/config/flags/table/`; a test fails when this page is stale:\n\n\
         ```\n{COMMAND}\n```\n\n\
         - A flag is also read from the environment as `HOLDFAST_<FLAG>`, then `ETCD_<FLAG>` (upper case, `-` as `_`), then\n  \
           from the file given with `--config-file`. The first one wins. An empty variable counts as not set.\n\
         - The file is YAML or JSON with etcd's keys: a flag's name, or a key below `client-transport-security` or\n  \
           `peer-transport-security`. A list means the same as a text with commas; a duration without a unit counts\n  \
           nanoseconds, as in etcd's files. An unknown key is refused.\n\
         - One dash works as well as two; a switch takes its value behind an equals sign (`--pre-vote=false`).\n\
         - **served**: it does what it says. **no effect**: it is taken, and the log says once why it needs nothing here.\n  \
           **refused**: the member does not start and says why; the default, an empty value, and what is listed as\n  \
           harmless are taken.\n"
    );
    for section in SECTIONS {
        write_section(&mut page, section);
    }
    page
}

fn write_section(page: &mut String, section: &Section) {
    const INTO_A_STRING: &str = "writing to a string succeeds";
    write!(
        page,
        "\n## {}\n\n| flag | default | | what becomes of it |\n| --- | --- | --- | --- |\n",
        section.title
    )
    .expect(INTO_A_STRING);
    for flag in section.flags.iter().filter(|flag| !flag.is_internal) {
        let default = if flag.default.is_empty() { String::new() } else { format!("`{}`", flag.default) };
        let (treatment, text) = treatment(flag);
        let names: Vec<String> = flag.names().map(|name| format!("`{name}`")).collect();
        let ours = if flag.origin == Origin::Holdfast { " *ours*" } else { "" };
        writeln!(page, "| {}{ours} | {default} | {treatment} | {} |", names.join(", "), escaped(&text))
            .expect(INTO_A_STRING);
    }
}

fn treatment(flag: &Flag) -> (&'static str, String) {
    let listed = |what: &str, values: &[&str]| {
        if values.is_empty() { String::new() } else { format!(" ({what}: {})", values.join(", ")) }
    };
    match flag.treatment {
        Treatment::Served(does) => ("served", does.to_owned()),
        Treatment::WithoutEffect { there, here, silent } => {
            ("no effect", format!("in etcd it {there}; here {here}{}", listed("no warning for", silent)))
        }
        Treatment::Refused(refusal, harmless) => {
            ("refused", format!("{}; {}{}", refusal.why, refusal.next, listed("harmless", harmless)))
        }
    }
}

fn escaped(text: &str) -> String {
    text.replace('|', "\\|").replace('<', "\\<")
}
