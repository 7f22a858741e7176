//! TLS and the guards of HTTP: refused as long as they are not there, so that nobody believes to be protected. And auth.

use super::{Here, Refusal, Section, There, flag};
use crate::config::flags::value::Kind::{Number, Switch, Text};

/// Never plain text where TLS was asked for.
const NO_TLS: Refusal = Refusal {
    why: "TLS is not served yet, and plain text where TLS was asked for would be worse than no service",
    next: "leave out all certificate flags and use http:// on a network you trust, or behind a TLS proxy",
};

const NO_GUARD: Refusal = Refusal {
    why: "the check it asks for is not there",
    next: "leave it out and put a proxy that checks in front of the member",
};

pub(super) const TLS: Section = Section {
    title: "TLS",
    flags: &[
        flag("cert-file", Text, "").refused(NO_TLS),
        flag("key-file", Text, "").refused(NO_TLS),
        flag("client-cert-auth", Switch, "false").refused(NO_TLS),
        flag("client-cert-file", Text, "").refused(NO_TLS),
        flag("client-key-file", Text, "").refused(NO_TLS),
        flag("client-crl-file", Text, "").refused(NO_TLS),
        flag("client-cert-allowed-hostname", Text, "").refused(NO_TLS),
        flag("trusted-ca-file", Text, "").refused(NO_TLS),
        flag("auto-tls", Switch, "false").refused(NO_TLS),
        flag("peer-cert-file", Text, "").refused(NO_TLS),
        flag("peer-key-file", Text, "").refused(NO_TLS),
        flag("peer-client-cert-auth", Switch, "false").refused(NO_TLS),
        flag("peer-client-cert-file", Text, "").refused(NO_TLS),
        flag("peer-client-key-file", Text, "").refused(NO_TLS),
        flag("peer-trusted-ca-file", Text, "").refused(NO_TLS),
        flag("peer-cert-allowed-cn", Text, "").refused(NO_TLS),
        flag("peer-cert-allowed-hostname", Text, "").refused(NO_TLS),
        flag("peer-auto-tls", Switch, "false").refused(NO_TLS),
        flag("peer-crl-file", Text, "").refused(NO_TLS),
        flag("peer-skip-client-san-verification", Switch, "false")
            .also(&["experimental-peer-skip-client-san-verification"])
            .refused(NO_TLS),
        flag("self-signed-cert-validity", Number, "1").without_effect(
            There("says how many years --auto-tls certificates are valid"),
            Here("there are none, --auto-tls is refused"),
        ),
        flag("cipher-suites", Text, "").refused(NO_TLS),
        flag("tls-min-version", Text, "TLS1.2").without_effect(
            There("refuses older versions of TLS"),
            Here("TLS is not served yet, and its certificates are refused"),
        ),
        flag("tls-max-version", Text, "").without_effect(
            There("refuses newer versions of TLS"),
            Here("TLS is not served yet, and its certificates are refused"),
        ),
    ],
};

pub(super) const HTTP: Section = Section {
    title: "HTTP guards",
    flags: &[flag("cors", Text, "*").refused(NO_GUARD), flag("host-whitelist", Text, "*").refused(NO_GUARD)],
};

pub(super) const AUTH: Section = Section {
    title: "Auth",
    flags: &[
        flag("auth-token", Text, "simple").refused(Refusal {
            why: "tokens are random and kept by the members (simple); signed ones (jwt) are not there",
            next: "leave it out, or write simple",
        }),
        flag("auth-token-ttl", Number, "300")
            .serves("Seconds after which a token that was not used on a member ends there"),
        flag("bcrypt-cost", Number, "10")
            .serves("How costly a password is to compare: twice as much for each one more; from 4 to 31"),
    ],
};
