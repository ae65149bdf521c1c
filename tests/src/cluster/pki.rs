//! The cluster's certificates, made anew for each cluster and kept in its state folder.
//!
//! Two authorities: one for the components and users, one for requests that the API server passes on to extension API
//! servers. They must differ, or every user's certificate could speak for anybody there.
//! See "PKI certificates and requirements" in the Kubernetes documentation.

use std::{
    fs,
    net::Ipv4Addr,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, ExtendedKeyUsagePurpose,
    IsCa, KeyPair, KeyUsagePurpose,
};

use super::network::{API_PORT, API_SERVICE_ADDRESS, NODE_ADDRESS};

/// Where the files are; `x.crt` and `x.key` belong together.
#[derive(Debug)]
pub(crate) struct Pki {
    directory: PathBuf,
}

/// Whom a certificate speaks for.
struct Identity<'a> {
    /// Its file's name, and a component's in [`Pki::certificate`].
    file: &'a str,
    user: &'a str,
    group: Option<&'a str>,
    /// Names and addresses it serves at; none for a mere client.
    served: &'a [&'a str],
}

impl Pki {
    /// Makes all of them; the nodes are given by name and address.
    pub(crate) fn create(directory: PathBuf, nodes: &[(String, Ipv4Addr)]) -> Result<Self> {
        fs::create_dir_all(&directory)?;
        let pki = Self { directory };
        let cluster = Authority::create("switchboard-test-cluster")?;
        let front_proxy = Authority::create("switchboard-test-front-proxy")?;
        pki.write("ca", &cluster.issuer.pem(), &cluster.issuer.key().serialize_pem())?;
        pki.write("front-proxy-ca", &front_proxy.issuer.pem(), &front_proxy.issuer.key().serialize_pem())?;

        let address = NODE_ADDRESS.to_string();
        let service = API_SERVICE_ADDRESS.to_string();
        let api_names = [
            address.as_str(),
            &service,
            "127.0.0.1",
            "localhost",
            "kubernetes",
            "kubernetes.default",
            "kubernetes.default.svc",
            "kubernetes.default.svc.cluster.local",
        ];
        let admins = Some("system:masters");
        let identities = [
            Identity { file: "kube-apiserver", user: "kube-apiserver", group: None, served: &api_names },
            Identity {
                file: "kubelet-client",
                user: "kube-apiserver-kubelet-client",
                group: admins,
                served: &[],
            },
            Identity {
                file: CONTROLLER_MANAGER,
                user: "system:kube-controller-manager",
                group: None,
                served: &[],
            },
            Identity { file: SCHEDULER, user: "system:kube-scheduler", group: None, served: &[] },
            Identity { file: PROXY, user: "system:kube-proxy", group: None, served: &[] },
            Identity { file: ADMIN, user: "admin", group: admins, served: &[] },
        ];
        for identity in &identities {
            pki.issue(&cluster, identity)?;
        }
        for (node, address) in nodes {
            let identity = Identity {
                file: &kubelet(node),
                user: &format!("system:node:{node}"),
                group: Some("system:nodes"),
                served: &[node, &address.to_string()],
            };
            pki.issue(&cluster, &identity)?;
        }
        pki.issue(
            &front_proxy,
            &Identity { file: "front-proxy-client", user: FRONT_PROXY, group: None, served: &[] },
        )?;

        // Service accounts' tokens are signed with a bare key.
        let key = KeyPair::generate()?;
        fs::write(pki.key(SERVICE_ACCOUNTS), key.serialize_pem())?;
        fs::write(pki.public_key(SERVICE_ACCOUNTS), key.public_key_pem())?;
        Ok(pki)
    }

    /// A certificate's path.
    pub(crate) fn certificate(&self, file: &str) -> PathBuf {
        self.directory.join(file).with_extension("crt")
    }

    /// A private key's path.
    pub(crate) fn key(&self, file: &str) -> PathBuf {
        self.directory.join(file).with_extension("key")
    }

    /// The path of a public key that has no certificate.
    pub(crate) fn public_key(&self, file: &str) -> PathBuf {
        self.directory.join(file).with_extension("pub")
    }

    /// Writes a kubeconfig for the identity `file`, and returns its path.
    pub(crate) fn kubeconfig(&self, file: &str) -> Result<PathBuf> {
        let path = self.directory.join(file).with_extension("kubeconfig");
        let content = serde_json::json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "test", "cluster": {
                "server": format!("https://{NODE_ADDRESS}:{API_PORT}"),
                "certificate-authority": self.certificate("ca"),
            }}],
            "users": [{"name": file, "user": {
                "client-certificate": self.certificate(file),
                "client-key": self.key(file),
            }}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": file}}],
            "current-context": "test",
        });
        write_json(&path, &content)?;
        Ok(path)
    }

    fn issue(&self, authority: &Authority, identity: &Identity<'_>) -> Result<()> {
        let (certificate, key) =
            authority.issue(identity).with_context(|| format!("no certificate for {}", identity.file))?;
        self.write(identity.file, &certificate, &key)
    }

    fn write(&self, file: &str, certificate: &str, key: &str) -> Result<()> {
        fs::write(self.certificate(file), certificate)?;
        fs::write(self.key(file), key)?;
        Ok(())
    }
}

pub(crate) const ADMIN: &str = "admin";
pub(crate) const CONTROLLER_MANAGER: &str = "kube-controller-manager";
pub(crate) const PROXY: &str = "kube-proxy";
pub(crate) const SCHEDULER: &str = "kube-scheduler";
/// The key pair that signs service accounts' tokens.
pub(crate) const SERVICE_ACCOUNTS: &str = "service-accounts";
/// The one name that extension API servers accept forwarded requests from.
pub(crate) const FRONT_PROXY: &str = "front-proxy-client";

/// A node's kubelet.
pub(crate) fn kubelet(node: &str) -> String {
    format!("kubelet-{node}")
}

/// Writes JSON, which is YAML too: all of Kubernetes' programs read it as their configuration.
pub(crate) fn write_json(path: &Path, content: &serde_json::Value) -> Result<()> {
    fs::write(path, format!("{content:#}\n")).with_context(|| format!("{} cannot be written", path.display()))
}

struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    fn create(name: &str) -> Result<Self> {
        let mut params = CertificateParams::default();
        params.distinguished_name = distinguished_name(name, None);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        Ok(Self { issuer: CertifiedIssuer::self_signed(params, KeyPair::generate()?)? })
    }

    /// A certificate and its key, both PEM.
    fn issue(&self, identity: &Identity<'_>) -> Result<(String, String)> {
        let served: Vec<String> = identity.served.iter().map(|&name| name.to_owned()).collect();
        let mut params = CertificateParams::new(served)?;
        params.distinguished_name = distinguished_name(identity.user, identity.group);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        if !identity.served.is_empty() {
            params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
        }
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok((certificate.pem(), key.serialize_pem()))
    }
}

/// Kubernetes takes the user from the common name and the group from the organization.
fn distinguished_name(user: &str, group: Option<&str>) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    if let Some(group) = group {
        name.push(DnType::OrganizationName, group);
    }
    name.push(DnType::CommonName, user);
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_identity_has_a_certificate_and_a_key_and_the_authorities_differ() {
        let directory = std::env::temp_dir().join(format!("switchboard-pki-test-{}", std::process::id()));
        let pki = Pki::create(directory.clone(), &[("node-1".to_owned(), NODE_ADDRESS)])
            .expect("certificates can be made");
        for file in [
            "ca",
            "front-proxy-ca",
            "kube-apiserver",
            "kubelet-client",
            CONTROLLER_MANAGER,
            SCHEDULER,
            PROXY,
            "kubelet-node-1",
            ADMIN,
            FRONT_PROXY,
        ] {
            let certificate = fs::read_to_string(pki.certificate(file)).expect("a certificate");
            assert!(certificate.starts_with("-----BEGIN CERTIFICATE-----"), "{file}");
            let key = fs::read_to_string(pki.key(file)).expect("a key");
            assert!(key.starts_with("-----BEGIN PRIVATE KEY-----"), "{file}");
        }
        assert_ne!(
            fs::read(pki.certificate("ca")).expect("one"),
            fs::read(pki.certificate("front-proxy-ca")).expect("two")
        );
        let config = kube::config::Kubeconfig::read_from(pki.kubeconfig(ADMIN).expect("a kubeconfig"));
        assert_eq!(config.expect("it parses").current_context.as_deref(), Some("test"));
        fs::remove_dir_all(directory).expect("the test's folder can be removed");
    }
}
