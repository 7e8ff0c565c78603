//! The keys and certificates of a cluster: one authority, a certificate for each component, and
//! the key that signs service account tokens. Written to a folder, ended with it.

use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PKCS_RSA_SHA256, RsaKeySize,
};

use crate::ClusterError;

/// Who a certificate speaks for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Subject<'a> {
    /// File name without ending.
    pub(crate) file: &'a str,
    /// User name.
    pub(crate) user: &'a str,
    /// Group, empty for none.
    pub(crate) group: &'a str,
}

/// The authority, and the folder of what it signs.
#[derive(Debug)]
pub(crate) struct Certificates {
    folder: PathBuf,
    issuer: Issuer<'static, KeyPair>,
}

/// A signed certificate with its key, as files.
#[derive(Debug, Clone)]
pub(crate) struct Signed {
    /// PEM of the certificate.
    pub(crate) certificate: PathBuf,
    /// PEM of the key.
    pub(crate) key: PathBuf,
}

impl Certificates {
    /// Makes an authority and the keys of service accounts in `folder`.
    pub(crate) fn make(folder: &Path) -> Result<Self, ClusterError> {
        fs::create_dir_all(folder).map_err(ClusterError::file(folder))?;
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = name("kubernetes", "");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        let certificate = params.self_signed(&key)?;
        write(&folder.join("ca.crt"), &certificate.pem())?;
        write(&folder.join("ca.key"), &key.serialize_pem())?;
        let accounts = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048)?;
        write(&folder.join("sa.key"), &accounts.serialize_pem())?;
        write(&folder.join("sa.pub"), &accounts.public_key_pem())?;
        Ok(Self { folder: folder.to_owned(), issuer: Issuer::new(params, key) })
    }

    /// A file of the folder.
    pub(crate) fn path(&self, file: &str) -> PathBuf {
        self.folder.join(file)
    }

    /// Signs a certificate for `subject`, good for a client, and for a server under `names`.
    pub(crate) fn sign(&self, subject: Subject, names: &[&str]) -> Result<Signed, ClusterError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let mut params = CertificateParams::new(names)?;
        params.distinguished_name = name(subject.user, subject.group);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        let signed = Signed {
            certificate: self.path(&format!("{}.crt", subject.file)),
            key: self.path(&format!("{}.key", subject.file)),
        };
        write(&signed.certificate, &params.signed_by(&key, &self.issuer)?.pem())?;
        write(&signed.key, &key.serialize_pem())?;
        Ok(signed)
    }
}

fn name(user: &str, group: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, user);
    if !group.is_empty() {
        name.push(DnType::OrganizationName, group);
    }
    name
}

fn write(path: &Path, text: &str) -> Result<(), ClusterError> {
    let mut options = fs::OpenOptions::new();
    options.create(true).truncate(true).write(true).mode(0o600);
    let mut file = options.open(path).map_err(ClusterError::file(path))?;
    file.write_all(text.as_bytes()).map_err(ClusterError::file(path))
}
