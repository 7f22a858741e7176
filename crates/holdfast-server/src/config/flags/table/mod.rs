//! Every flag of a member: ours and all of etcd's (3.4 to 3.7), with what becomes of it here.
//!
//! This table is the only list. Parsing, `--help`, the warnings, the refusals and `docs/flags.md` are made from it; tests
//! hold it against the flags of etcd's releases and the help text of a real one. Module map: `member` flags that do
//! something, mostly; `elsewhere` those that belong to how etcd is built; `security` TLS, HTTP guards and auth.

mod elsewhere;
mod member;
mod security;

use super::value::Kind;

/// One flag.
#[derive(Debug, Clone, Copy)]
pub struct Flag {
    /// Its name, without dashes.
    pub name: &'static str,
    /// Names of the same flag in other versions of etcd.
    pub aliases: &'static [&'static str],
    /// What its value is.
    pub kind: Kind,
    /// The value when none is given, as text; empty for none, or for one that depends on other flags.
    pub default: &'static str,
    /// What becomes of it.
    pub treatment: Treatment,
    /// Whether etcd has it.
    pub origin: Origin,
    /// For our own parent processes, not for operators: not listed and not read from the environment.
    pub is_internal: bool,
}

/// Whether etcd has a flag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// It has, or had, or will have it.
    Etcd,
    /// It is only ours.
    Holdfast,
}

/// What becomes of a flag.
#[derive(Debug, Clone, Copy)]
pub enum Treatment {
    /// It does what this says.
    Served(&'static str),
    /// It is taken and changes nothing; one warning says so.
    WithoutEffect {
        /// What it does in etcd: "keeps so many files".
        there: &'static str,
        /// Why nothing is needed here: a clause.
        here: &'static str,
        /// Values that are what we do anyway: no warning.
        silent: &'static [&'static str],
    },
    /// The start is refused, except with the default, with an empty value, or with one of `harmless`.
    Refused(Refusal, &'static [&'static str]),
}

/// Why a flag cannot be honoured, and what to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    /// The reason, a clause.
    pub why: &'static str,
    /// The next step, an imperative.
    pub next: &'static str,
}

/// Flags that belong together.
#[derive(Debug, Clone, Copy)]
pub struct Section {
    /// Its heading.
    pub title: &'static str,
    /// In the order they are listed.
    pub flags: &'static [Flag],
}

/// All sections, in the order they are listed.
pub const SECTIONS: &[Section] = &[
    member::MEMBER,
    member::CLUSTER,
    member::LIMITS,
    member::ENGINE,
    member::WATCHES,
    member::LOGGING,
    member::MONITORING,
    security::TLS,
    security::HTTP,
    security::AUTH,
    elsewhere::COMPACTION,
    elsewhere::CONSENSUS,
    elsewhere::BACKEND,
    elsewhere::CHECKS,
    elsewhere::DISCOVERY,
    elsewhere::TRACING,
    elsewhere::API_V2,
    elsewhere::UNSAFE,
];

/// All flags.
pub fn all() -> impl Iterator<Item = &'static Flag> {
    SECTIONS.iter().flat_map(|section| section.flags)
}

/// The flag with this name, which may be an alias.
pub fn find(name: &str) -> Option<&'static Flag> {
    all().find(|flag| flag.names().any(|known| known == name))
}

/// The known name nearest to one that is none, if there is one near enough to be meant.
pub fn nearest(unknown: &str) -> Option<&'static str> {
    const NEAR_ENOUGH: f64 = 0.7;
    let names = all().filter(|flag| !flag.is_internal).flat_map(Flag::names);
    let scored =
        names.map(|name| (strsim::jaro(unknown, name), name)).filter(|(score, _)| *score > NEAR_ENOUGH);
    scored.max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, name)| name)
}

impl Flag {
    /// Its name and its aliases.
    pub fn names(&'static self) -> impl Iterator<Item = &'static str> {
        std::iter::once(self.name).chain(self.aliases.iter().copied())
    }

    /// What must be said once about this value: `None` when it does something, or what we do anyway.
    pub fn warning(&self, given_as: &str, value: &str) -> Option<String> {
        let Treatment::WithoutEffect { there, here, silent } = self.treatment else { return None };
        let is_news = !silent.contains(&value);
        is_news.then(|| format!("{given_as}={value} has no effect: in etcd it {there}; here {here}"))
    }

    /// Why a start with this value is refused, if it is.
    pub fn refusal(&self, value: &str) -> Option<Refusal> {
        match self.treatment {
            Treatment::Refused(refusal, harmless) => {
                let asks_nothing = value.is_empty() || value == self.default || harmless.contains(&value);
                (!asks_nothing).then_some(refusal)
            }
            Treatment::Served(_) | Treatment::WithoutEffect { .. } => None,
        }
    }

    const fn serves(self, does: &'static str) -> Self {
        Self { treatment: Treatment::Served(does), ..self }
    }

    const fn without_effect(self, there: There, here: Here) -> Self {
        Self { treatment: Treatment::WithoutEffect { there: there.0, here: here.0, silent: &[] }, ..self }
    }

    /// Values of a flag without effect that need no warning.
    const fn silent(self, silent: &'static [&'static str]) -> Self {
        let Treatment::WithoutEffect { there, here, .. } = self.treatment else {
            panic!("only a flag without effect is warned about")
        };
        Self { treatment: Treatment::WithoutEffect { there, here, silent }, ..self }
    }

    const fn refused(self, refusal: Refusal) -> Self {
        Self { treatment: Treatment::Refused(refusal, &[]), ..self }
    }

    const fn also(self, aliases: &'static [&'static str]) -> Self {
        Self { aliases, ..self }
    }

    const fn ours(self) -> Self {
        Self { origin: Origin::Holdfast, ..self }
    }

    const fn internal(self) -> Self {
        Self { is_internal: true, ..self.ours() }
    }
}

/// What a flag does in etcd.
#[derive(Clone, Copy)]
struct There(&'static str);
/// Why nothing is needed for it here.
#[derive(Clone, Copy)]
struct Here(&'static str);

/// A flag of etcd; its treatment follows.
const fn flag(name: &'static str, kind: Kind, default: &'static str) -> Flag {
    Flag {
        name,
        aliases: &[],
        kind,
        default,
        treatment: Treatment::Served(""),
        origin: Origin::Etcd,
        is_internal: false,
    }
}
