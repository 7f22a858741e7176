//! Why a handshake failed: one word for counters, and a sentence with the next step for people.

use std::io;

use rustls::{AlertDescription, CertificateError, Error, InvalidMessage};

/// Why a port refused a connection, or lost it, before anything was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// It showed no certificate.
    NoCertificate,
    /// It showed one that none of the CAs has signed.
    UnknownCa,
    /// It showed one that has expired, or is not valid yet.
    Expired,
    /// It showed one whose name is not allowed.
    NameNotAllowed,
    /// It showed one that cannot be used for something else.
    BadCertificate,
    /// It does not believe our certificate.
    OursRefused,
    /// It has no version or cipher that we have.
    Incompatible,
    /// It spoke plain text on a port for TLS.
    PlainText,
    /// It began a handshake on a port for plain text.
    TlsOnPlainPort,
    /// It did not finish in time.
    Late,
    /// It went away.
    Closed,
    /// It sent something that is no handshake.
    Protocol,
}

impl Cause {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::NoCertificate,
        Self::UnknownCa,
        Self::Expired,
        Self::NameNotAllowed,
        Self::BadCertificate,
        Self::OursRefused,
        Self::Incompatible,
        Self::PlainText,
        Self::TlsOnPlainPort,
        Self::Late,
        Self::Closed,
        Self::Protocol,
    ];

    /// Its name in metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::NoCertificate => "no_certificate",
            Self::UnknownCa => "unknown_ca",
            Self::Expired => "expired",
            Self::NameNotAllowed => "name_not_allowed",
            Self::BadCertificate => "bad_certificate",
            Self::OursRefused => "ours_refused",
            Self::Incompatible => "incompatible",
            Self::PlainText => "plain_text",
            Self::TlsOnPlainPort => "tls_on_plain_port",
            Self::Late => "late",
            Self::Closed => "closed",
            Self::Protocol => "protocol",
        }
    }

    /// What to do about it, for whoever runs the port.
    pub fn hint(self) -> &'static str {
        match self {
            Self::NoCertificate => "give it a certificate and key that the port's trusted CA has signed",
            Self::UnknownCa => {
                "its certificate is of a CA that the port's trusted CA file does not have: add that CA, or \
                                give it a certificate of ours"
            }
            Self::Expired => "renew its certificate, and compare the clocks",
            Self::NameNotAllowed => {
                "its certificate has none of the names in the port's allowed-cn or allowed-hostname"
            }
            Self::BadCertificate => "make its certificate anew, for use by clients",
            Self::OursRefused => {
                "it does not believe this member's certificate: give it the CA, and look whether the \
                                  certificate has the name that it connects to and has not expired"
            }
            Self::Incompatible => "it has no version of TLS that is allowed here: TLS 1.2 or newer",
            Self::PlainText => "this port speaks TLS: have it use https://",
            Self::TlsOnPlainPort => {
                "this port speaks plain text: have it use http://, or give this member certificates \
                                     and an https:// URL to listen on"
            }
            Self::Late => "it connected and did not finish: a port scan, or a network that loses packets",
            Self::Closed => {
                "it connected and went away: a port scan or a health check over TCP, or a client that does not \
                             believe this member's certificate and does not say so"
            }
            Self::Protocol => "it sent what is no handshake",
        }
    }

    /// Of a handshake that a port tried.
    pub(crate) fn of(error: &io::Error) -> Self {
        match tls_error(error) {
            Some(Error::NoCertificatesPresented) => Self::NoCertificate,
            Some(Error::InvalidCertificate(why)) => match why {
                CertificateError::UnknownIssuer | CertificateError::BadSignature => Self::UnknownCa,
                CertificateError::Expired
                | CertificateError::ExpiredContext { .. }
                | CertificateError::NotValidYet
                | CertificateError::NotValidYetContext { .. } => Self::Expired,
                CertificateError::ApplicationVerificationFailure => Self::NameNotAllowed,
                _ => Self::BadCertificate,
            },
            Some(Error::AlertReceived(_)) => Self::OursRefused,
            Some(Error::PeerIncompatible(_)) => Self::Incompatible,
            Some(_) => Self::Protocol,
            None => Self::Closed,
        }
    }
}

fn tls_error(error: &io::Error) -> Option<&Error> {
    error.get_ref()?.downcast_ref()
}

/// Why a connection that we made failed, and what to do about it. `None` when that has nothing to do with TLS.
pub(crate) fn explained(error: &io::Error) -> Option<String> {
    let said = match tls_error(error)? {
        Error::InvalidCertificate(why) => certificate(why),
        Error::AlertReceived(alert) => alerted(*alert),
        Error::InvalidMessage(InvalidMessage::InvalidContentType) => {
            "the server speaks plain text on this port: use http://, or have the server listen on an https:// URL".to_owned()
        }
        Error::PeerIncompatible(_) => {
            "the server has no version of TLS that we have: it must speak TLS 1.2 or 1.3".to_owned()
        }
        other => format!("TLS failed: {other}"),
    };
    Some(said)
}

/// What is wrong with a server's certificate.
fn certificate(why: &CertificateError) -> String {
    match why {
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            "the server's certificate is of a CA that is not trusted here: give the file of the CA that signed it (cacert)"
                .to_owned()
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "the server's certificate has expired: renew it on the server, and compare the clocks".to_owned()
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "the server's certificate is not valid yet: compare the clocks".to_owned()
        }
        CertificateError::NotValidForNameContext { expected, presented } => format!(
            "the server's certificate is not for {}, but for {}: connect by one of its names, or make one with this name \
             in it",
            expected.to_str(),
            if presented.is_empty() { "no name at all".to_owned() } else { presented.join(", ") }
        ),
        CertificateError::NotValidForName => {
            "the server's certificate is for another name: connect by one of its names, or make one with this name in it"
                .to_owned()
        }
        CertificateError::ApplicationVerificationFailure => {
            "the server's certificate has none of the names that are allowed here".to_owned()
        }
        other => format!("the server's certificate cannot be used: {other}"),
    }
}

/// What a server says before it closes.
fn alerted(alert: AlertDescription) -> String {
    match alert {
        AlertDescription::CertificateRequired | AlertDescription::HandshakeFailure => {
            "the server wants a client certificate: give cert and key, signed by the CA that the server trusts".to_owned()
        }
        // The second one when the server's CA has the name of ours, and another key.
        AlertDescription::UnknownCA | AlertDescription::DecryptError => "the server does not trust the CA of our client certificate: give a certificate \
                                        of a CA in the server's trusted CA file"
            .to_owned(),
        AlertDescription::CertificateExpired => {
            "the server says that our client certificate has expired: renew it, and compare the clocks".to_owned()
        }
        AlertDescription::AccessDenied => {
            "the server does not admit the name in our client certificate: give a certificate with a name that it allows"
                .to_owned()
        }
        AlertDescription::BadCertificate
        | AlertDescription::UnsupportedCertificate
        | AlertDescription::CertificateUnknown => {
            "the server refuses our client certificate: give one that is for use by clients, or leave it out where none is \
             asked for"
                .to_owned()
        }
        AlertDescription::ProtocolVersion => {
            "the server refuses our versions of TLS: it must speak TLS 1.2 or 1.3".to_owned()
        }
        other => format!("the server broke off TLS: {other:?}"),
    }
}
