//! Certificates for a server: a new authority, and a certificate signed by it for 127.0.0.1 and localhost.

use std::{fs, path::Path, process::Command};

use super::missing;

pub(super) const CA: &str = "ca.crt";

const NAMES: &str = "subjectAltName=IP:127.0.0.1,DNS:localhost\nbasicConstraints=critical,CA:FALSE\n";

/// Writes the authority's `ca.crt` and the server's `server.crt` and `server.key` into the folder.
pub fn certify(folder: &Path) {
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
    fs::write(folder.join("names"), NAMES).expect("the folder is writable");
    openssl(folder, &format!("req -x509 {key} -keyout ca.key -out {CA} -days 3650 -subj /CN=tests-only"));
    openssl(folder, &format!("req {key} -keyout server.key -out server.csr -subj /CN=localhost"));
    let signed = format!("-CA {CA} -CAkey ca.key -CAcreateserial -days 3650 -extfile names");
    openssl(folder, &format!("x509 -req -in server.csr -out server.crt {signed}"));
}

fn openssl(folder: &Path, args: &str) {
    let output = Command::new("openssl").args(args.split(' ')).current_dir(folder).output();
    let output = output.unwrap_or_else(|error| missing("openssl", "openssl", &error));
    assert!(output.status.success(), "openssl {args}: {}", String::from_utf8_lossy(&output.stderr));
}
