//! TLS, auth, and the guards of HTTP: what is not there is refused, so that nobody believes to be protected.

use super::{Here, Refusal, Section, There, flag};
use crate::config::flags::value::Kind::{Choice, Number, Switch, Text};

/// Never an unchecked certificate where a check was asked for.
const NO_LIST: Refusal = Refusal {
    why: "revoked certificates are not looked up",
    next: "leave it out, and take a certificate back by replacing the CA: docs/tls.md says how",
};

const NO_AUTO: Refusal = Refusal {
    why: "a certificate that a member makes for itself is one that no client can check",
    next: "make a CA and certificates with holdfastctl cert, which takes two commands: docs/tls.md",
};

const NO_CIPHERS: Refusal = Refusal {
    why: "the ciphers are those of rustls, all of which are sound",
    next: "leave it out; --tls-min-version=TLS1.3 leaves the older ones out",
};

const NO_GUARD: Refusal = Refusal {
    why: "the check it asks for is not there",
    next: "leave it out and put a proxy that checks in front of the member",
};

pub(super) const TLS: Section = Section {
    title: "TLS",
    flags: &[
        flag("cert-file", Text, "").serves("Certificate of the client port, PEM, with those between it and its CA"),
        flag("key-file", Text, "").serves("Private key of --cert-file, PEM"),
        flag("client-cert-auth", Switch, "false").serves(
            "Clients must show a certificate that --trusted-ca-file has signed; its common name is the user of calls without \
             a token",
        ),
        flag("trusted-ca-file", Text, "")
            .serves("CAs of clients' certificates, PEM; given, clients must show one, as in etcd"),
        flag("client-cert-allowed-hostname", Text, "")
            .serves("Admit clients whose certificate is for one of these host names or addresses; comma-separated"),
        flag("client-cert-file", Text, "").without_effect(OWN_GATEWAY.0, OWN_GATEWAY.1),
        flag("client-key-file", Text, "").without_effect(OWN_GATEWAY.0, OWN_GATEWAY.1),
        flag("client-crl-file", Text, "").refused(NO_LIST),
        flag("auto-tls", Switch, "false").refused(NO_AUTO),
        flag("peer-cert-file", Text, "")
            .serves("Certificate of the peer port, PEM; also shown to other members, unless --peer-client-cert-file is given"),
        flag("peer-key-file", Text, "").serves("Private key of --peer-cert-file, PEM"),
        flag("peer-client-cert-auth", Switch, "false")
            .serves("Other members must show a certificate that --peer-trusted-ca-file has signed"),
        flag("peer-trusted-ca-file", Text, "").serves(
            "CAs of the members' certificates, PEM; given, other members must show one, as in etcd. Without it the CAs of this \
             machine are trusted",
        ),
        flag("peer-client-cert-file", Text, "").serves("Certificate shown to other members, PEM"),
        flag("peer-client-key-file", Text, "").serves("Private key of --peer-client-cert-file, PEM"),
        flag("peer-cert-allowed-cn", Text, "")
            .serves("Take part only with members whose certificate has one of these common names; comma-separated"),
        flag("peer-cert-allowed-hostname", Text, "").serves(
            "Take part only with members whose certificate is for one of these host names or addresses; comma-separated",
        ),
        flag("peer-auto-tls", Switch, "false").refused(NO_AUTO),
        flag("peer-crl-file", Text, "").refused(NO_LIST),
        flag("peer-skip-client-san-verification", Switch, "false")
            .also(&["experimental-peer-skip-client-san-verification"])
            .without_effect(
                There("leaves out the check that a member connects from an address in its certificate"),
                Here("there is no such check: the CA and the allowed names decide"),
            )
            .silent(&["true"]),
        flag("self-signed-cert-validity", Number, "1").without_effect(
            There("says how many years --auto-tls certificates are valid"),
            Here("there are none, --auto-tls is refused"),
        ),
        flag("cipher-suites", Text, "").refused(NO_CIPHERS),
        flag("tls-min-version", Choice(&["TLS1.2", "TLS1.3"]), "TLS1.2").serves("Oldest version of TLS that is spoken"),
        flag("tls-max-version", Choice(&["TLS1.2", "TLS1.3"]), "").serves("Newest version of TLS that is spoken"),
    ],
};

const OWN_GATEWAY: (There, Here) =
    (There("is shown by the member's own gateway to itself"), Here("a member makes no connection to itself"));

pub(super) const HTTP: Section = Section {
    title: "HTTP guards",
    flags: &[flag("cors", Text, "*").refused(NO_GUARD), flag("host-whitelist", Text, "*").refused(NO_GUARD)],
};

pub(super) const AUTH: Section = Section {
    title: "Auth",
    flags: &[
        flag("auth-token", Text, "simple").serves(
            "Tokens of logins: simple, random and kept by the members; or jwt,pub-key=FILE,priv-key=FILE,sign-method=RS256,\
             ttl=5m, signed and kept by nobody; keys are PEM, a shared secret (HS256) is priv-key alone",
        ),
        flag("auth-token-ttl", Number, "300")
            .serves("Seconds after which a token that was not used on a member ends there"),
        flag("bcrypt-cost", Number, "10")
            .serves("How costly a password is to compare: twice as much for each one more; from 4 to 31"),
    ],
};
