//! When certificates expire, and connections that failed before anything was asked.

use prometheus::{IntCounterVec, IntGaugeVec};

use super::Maker;
use crate::tls::TlsFigures;

/// What is copied from the member's ports.
pub(super) struct TlsGauges {
    expires: IntGaugeVec,
    failed: IntCounterVec,
    reloads: IntCounterVec,
}

impl TlsGauges {
    pub(super) fn new(maker: &Maker<'_>) -> Self {
        Self {
            expires: maker.gauges(
                "holdfast_tls_certificate_expires_seconds",
                "When a certificate in use expires, in seconds since 1970; of CAs, the first one that does.",
                &["which"],
            ),
            failed: maker.counters(
                "holdfast_tls_handshakes_failed_total",
                "Connections that ended before a request, by port and cause.",
                &["port", "cause"],
            ),
            reloads: maker.counters(
                "holdfast_tls_reloads_total",
                "Changes of certificate files, by whether they were taken.",
                &["result"],
            ),
        }
    }

    pub(super) fn refresh(&self, figures: &TlsFigures) {
        // A certificate that is not there any more has no time.
        self.expires.reset();
        for expiry in &figures.expiries {
            self.expires.with_label_values(&[expiry.which]).set(expiry.at);
        }
        super::raise(&self.reloads.with_label_values(&["taken"]), figures.reloads);
        super::raise(&self.reloads.with_label_values(&["refused"]), figures.refusals);
        for (port, cause, count) in &figures.failures {
            super::raise(&self.failed.with_label_values(&[*port, cause.label()]), *count);
        }
    }
}
