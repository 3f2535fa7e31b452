//! Certificates made for a test, by openssl.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use tempfile::TempDir;

/// A certificate authority of the test's own, and what it signed.
pub struct Certificates {
    folder: TempDir,
}

impl Certificates {
    pub fn new() -> Self {
        let certificates = Self { folder: tempfile::tempdir().unwrap() };
        certificates.openssl("req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -noenc -days 2 -subj /CN=ca -keyout ca.key -out ca.crt");
        for name in ["server", "client"] {
            fs::write(certificates.file("extensions"), "subjectAltName=DNS:localhost,IP:127.0.0.1\n").unwrap();
            certificates.openssl(&format!(
                "req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -noenc -subj /CN={name} -keyout {name}.key -out {name}.csr"
            ));
            certificates.openssl(&format!(
                "x509 -req -in {name}.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -extfile extensions -out {name}.crt"
            ));
        }
        certificates
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn openssl(&self, args: &str) {
        let output = Command::new("openssl").args(args.split(' ')).current_dir(self.folder.path()).output();
        let output = output.expect("openssl is to be installed");
        assert!(output.status.success(), "openssl {args}: {}", String::from_utf8_lossy(&output.stderr));
    }
}
