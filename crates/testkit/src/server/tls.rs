//! Certificates for one server: an authority, and a certificate for 127.0.0.1 and localhost.

use std::{fs, path::Path, process::Command};

pub(super) const CA: &str = "ca.crt";

/// Paths are relative to the server's folder, in which it runs.
pub(super) const SETTINGS: &[(&str, &str)] = &[
    ("tls-ca-cert-file", CA),
    ("tls-cert-file", "server.crt"),
    ("tls-key-file", "server.key"),
    ("tls-auth-clients", "no"),
];

const NAMES: &str = "subjectAltName=IP:127.0.0.1,DNS:localhost\nbasicConstraints=critical,CA:FALSE\n";

/// Writes `ca.crt`, `server.crt` and `server.key` into the folder.
pub fn certify(folder: &Path) {
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
    fs::write(folder.join("names"), NAMES).expect("a file in the folder");
    openssl(folder, &format!("req -x509 {key} -keyout ca.key -out {CA} -days 3650 -subj /CN=tests-only"));
    openssl(folder, &format!("req {key} -keyout server.key -out server.csr -subj /CN=localhost"));
    let signed = format!("-CA {CA} -CAkey ca.key -CAcreateserial -days 3650 -extfile names");
    openssl(folder, &format!("x509 -req -in server.csr -out server.crt {signed}"));
}

fn openssl(folder: &Path, words: &str) {
    let done = Command::new("openssl").args(words.split(' ')).current_dir(folder).output();
    let done = done.unwrap_or_else(|error| panic!("openssl: {error}; its Debian package is openssl"));
    assert!(done.status.success(), "openssl {words}: {}", String::from_utf8_lossy(&done.stderr));
}
