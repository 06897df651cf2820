//! A certificate authority of a test's own, and a server's certificate from it.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use guardian_tests::host;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::bench::Bench;

/// Files in PEM.
pub(crate) struct Identity {
    pub(crate) authority: PathBuf,
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

impl Identity {
    /// Makes one for the addresses that our servers have.
    pub(crate) fn make(bench: &Bench) -> Self {
        let openssl = |arguments: &str| openssl(bench, arguments);
        openssl(
            "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=ca -keyout @ca.key -out @ca.pem",
        );
        openssl(
            "req -newkey rsa:2048 -nodes -subj /CN=registry -keyout @key.pem -out @registry.csr",
        );
        fs::write(bench.path("san"), "subjectAltName=IP:127.0.0.1,IP:127.0.0.2").unwrap();
        openssl(
            "x509 -req -in @registry.csr -CA @ca.pem -CAkey @ca.key -CAcreateserial -days 2 \
             -extfile @san -out @registry.pem",
        );
        let [authority, certificate, key] =
            ["ca.pem", "registry.pem", "key.pem"].map(|name| bench.path(name));
        Self { authority, certificate, key }
    }

    /// Makes one that is its own authority, and says so or not.
    pub(crate) fn self_signed(bench: &Bench, is_authority: bool) -> Self {
        let is_authority = if is_authority { "TRUE" } else { "FALSE" };
        openssl(
            bench,
            &format!(
                "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=registry -addext \
                 subjectAltName=IP:127.0.0.1 -addext basicConstraints=critical,CA:{is_authority} \
                 -keyout @key.pem -out @registry.pem"
            ),
        );
        let [certificate, key] = ["registry.pem", "key.pem"].map(|name| bench.path(name));
        Self { authority: certificate.clone(), certificate, key }
    }

    /// What a TLS server needs.
    pub(crate) fn server(&self) -> Arc<ServerConfig> {
        let certificate = CertificateDer::from_pem_file(&self.certificate).unwrap();
        let key = PrivateKeyDer::from_pem_file(&self.key).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(provider);
        let builder = builder.with_safe_default_protocol_versions().unwrap();
        Arc::new(builder.with_no_client_auth().with_single_cert(vec![certificate], key).unwrap())
    }
}

/// `@NAME` is a file of the test's.
fn openssl(bench: &Bench, arguments: &str) {
    let mut command = Command::new("openssl");
    let words = arguments.split(' ').map(|word| match word.strip_prefix('@') {
        Some(name) => bench.path(name).into_os_string(),
        None => word.into(),
    });
    host::output(command.args(words)).unwrap();
}
