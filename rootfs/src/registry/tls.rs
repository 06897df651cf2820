//! What TLS needs of this host, and what its failures mean to who runs it.

use std::path::Path;

use anyhow::bail;
use guardian_contract::fault::{Fault, Kind};
use rustls::CertificateError::{Other, UnknownIssuer};
use rustls::pki_types::CertificateDer;
use rustls_native_certs::{CertificateResult, load_certs_from_paths, load_native_certs};
use ureq::tls::{Certificate, RootCerts};

/// The host's certificate authorities, or those that `SSL_CERT_FILE` and `SSL_CERT_DIR` name.
///
/// # Errors
/// When there are none, or none in the file that is named: without them a registry would seem to be at
/// fault.
pub(super) fn roots() -> anyhow::Result<RootCerts> {
    if let Some(file) = std::env::var_os("SSL_CERT_FILE").filter(|file| !file.is_empty()) {
        let place = format!("in {}, which SSL_CERT_FILE names", file.display());
        found(load_certs_from_paths(Some(Path::new(&file)), None), &place)?;
    }
    let place = "on this host (package ca-certificates, or SSL_CERT_FILE and SSL_CERT_DIR)";
    let all = found(load_native_certs(), place)?;
    let certificates = all.iter().map(|der| Certificate::from_der(der).to_owned());
    Ok(RootCerts::from(certificates))
}

fn found(result: CertificateResult, place: &str) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    if result.certs.is_empty() {
        let why = result.errors.first().map(|error| format!(": {error}")).unwrap_or_default();
        bail!("there are no CA certificates {place}{why}");
    }
    Ok(result.certs)
}

/// Returns what went wrong, if it was TLS.
pub(super) fn failure(error: &ureq::Error) -> Option<&rustls::Error> {
    match error {
        ureq::Error::Rustls(error) => Some(error),
        ureq::Error::Io(error) => error.get_ref()?.downcast_ref(),
        _ => None,
    }
}

/// Says what can be done about a failure, if anything can.
pub(super) fn explain(host: &str, error: &rustls::Error) -> Option<Fault> {
    match error {
        // The text is grootfs'.
        rustls::Error::InvalidCertificate(UnknownIssuer) => Some(Fault::invalid(
            "This registry is insecure. To pull images from this registry, please use the \
             --insecure-registry option.",
        )),
        rustls::Error::InvalidCertificate(Other(other)) if other.0.to_string() == AUTHORITY => {
            Some(Fault::invalid(format!(
                "registry {host} shows the certificate of a certificate authority as its own, \
                 which is not accepted even if that authority is trusted: it needs one that the \
                 authority has signed, or a self-signed one with basicConstraints CA:FALSE"
            )))
        }
        rustls::Error::InvalidMessage(_) => Some(Fault::new(
            Kind::Unavailable,
            format!(
                "registry {host} can't be reached: it does not speak TLS; if it is to be trusted \
                 without, allow it with --insecure-registry {host}"
            ),
        )),
        _ => None,
    }
}

/// How webpki, whose errors rustls hides, calls an authority in a server's place.
const AUTHORITY: &str = "CaUsedAsEndEntity";
