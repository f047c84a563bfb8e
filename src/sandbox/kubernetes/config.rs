//! The settings of sandboxes in a cluster. Values, and whether they make sense; nothing here asks the cluster.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use serde::Deserialize;

/// How sandboxes are made in a cluster.
#[derive(Debug, Clone, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The namespace of sandboxes, which holds nothing else.
    pub namespace: String,
    /// A file that says where the cluster's API is and who asks; what a pod is given when absent.
    pub kubeconfig: Option<PathBuf>,
    /// Where the worker listens for its sandboxes.
    pub listen: SocketAddr,
    /// The same as sandboxes reach it: the worker's own address as the cluster sees it (`status.podIP`), as sandboxes resolve no name. The port
    /// is that of `listen` when absent.
    pub advertise: String,
    /// An image with `inside`: the worker's own, in its own version.
    pub tools_image: String,
    /// Where `inside` is in it.
    pub tools_program: String,
    /// For how long this worker may fail to renew its Lease before other workers remove that, and the cluster this worker's sandboxes with it, in
    /// seconds.
    pub lease_s: u64,
    /// The worker's own pod (`metadata.name`). Where it is in the namespace of its sandboxes, it owns the Lease that owns them.
    pub pod_name: Option<String>,
    /// Its `metadata.uid`.
    pub pod_uid: Option<String>,
    /// A profile of system calls on every node, below the kubelet's `seccomp` directory; the node's default profile when absent.
    pub seccomp_profile: Option<String>,
    /// Secrets with which images are pulled.
    pub pull_secrets: Vec<String>,
    /// Labels of the nodes that may run sandboxes.
    pub node_selector: BTreeMap<String, String>,
    /// Processors that are set aside for a sandbox; `sandbox.cpus` when absent.
    pub request_cpus: Option<f64>,
    /// Memory that is set aside for a sandbox, in bytes; `sandbox.memory_bytes` when absent.
    pub request_memory_bytes: Option<i64>,
    /// The largest disk use of a sandbox beside its workspace, in bytes: logs, and volumes that its image declares.
    pub scratch_bytes: u64,
    /// How long a pod may take to be placed and to start, in seconds; pulling its images (`sandbox.pull_timeout_s`) comes on top.
    pub start_timeout_s: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            namespace: String::new(),
            kubeconfig: None,
            listen: SocketAddr::from(([0, 0, 0, 0], 8473)),
            advertise: String::new(),
            tools_image: String::new(),
            tools_program: "/usr/local/bin/inside".to_owned(),
            lease_s: 600,
            pod_name: None,
            pod_uid: None,
            seccomp_profile: None,
            pull_secrets: Vec::new(),
            node_selector: BTreeMap::new(),
            request_cpus: None,
            request_memory_bytes: None,
            scratch_bytes: 256 * 1024 * 1024,
            start_timeout_s: 120,
        }
    }
}

/// Shortest and longest time without a renewal, in seconds.
const LEASE_S: (u64, u64) = (5, 24 * 3600);
/// Longest wait for a pod, in seconds.
const LONGEST_START_S: u64 = 3600;

impl Config {
    /// Where sandboxes reach the worker.
    #[must_use]
    pub fn advertised(&self) -> Option<SocketAddr> {
        let with_port = self.advertise.parse().ok();
        with_port.or_else(|| Some(SocketAddr::new(self.advertise.parse().ok()?, self.listen.port())))
    }

    /// The worker's pod as the owner of the Lease that owns its sandboxes, asked by somebody of this namespace. The cluster takes an owner in
    /// another namespace for one that is gone.
    pub(super) fn owner(&self, home: &str) -> Option<OwnerReference> {
        let (name, uid) = self.pod_name.as_ref().zip(self.pod_uid.as_ref())?;
        (home == self.namespace).then(|| OwnerReference {
            api_version: "v1".to_owned(),
            kind: "Pod".to_owned(),
            name: name.clone(),
            uid: uid.clone(),
            controller: None,
            block_owner_deletion: None,
        })
    }

    /// Whether it makes sense.
    ///
    /// # Errors
    /// The key below `sandbox.kubernetes`, and the rule that it breaks.
    pub fn check(&self) -> Result<(), (&'static str, &'static str)> {
        const NAME: &str = "must be a name as the cluster has them: a-z, 0-9 and '-', at most 63 characters";
        if !is_name(&self.namespace) {
            return Err(("namespace", NAME));
        }
        if self.listen.port() == 0 {
            return Err(("listen", "must have a port: the network policy of sandboxes names it"));
        }
        match self.advertised() {
            None => {
                return Err((
                    "advertise",
                    "must be an IP address, with a port or without: sandboxes resolve no name",
                ));
            }
            Some(address) if address.ip().is_unspecified() => {
                return Err(("advertise", "must be the worker's own address, not all of them"));
            }
            Some(_) => {}
        }
        if self.tools_image.is_empty() {
            return Err(("tools_image", "must name an image with `inside`: the worker's own"));
        }
        if !self.tools_program.starts_with('/') {
            return Err(("tools_program", "must be an absolute path"));
        }
        if self.lease_s < LEASE_S.0 || self.lease_s > LEASE_S.1 {
            return Err(("lease_s", "must be a number of seconds from 5 to 86400"));
        }
        if self.pod_name.is_some() != self.pod_uid.is_some() {
            return Err(("pod_name", "goes together with pod_uid"));
        }
        let profile = self.seccomp_profile.as_deref();
        if profile
            .is_some_and(|path| path.is_empty() || path.starts_with('/') || path.split('/').any(|part| part == ".."))
        {
            return Err((
                "seccomp_profile",
                "must be a relative path that stays below the kubelet's directory",
            ));
        }
        if self.pull_secrets.iter().any(|name| !is_name(name)) {
            return Err(("pull_secrets", NAME));
        }
        if self.request_cpus.is_some_and(|cpus| !(cpus > 0.0 && cpus <= 1024.0)) {
            return Err(("request_cpus", "must be above 0 and at most 1024"));
        }
        if self.request_memory_bytes.is_some_and(|bytes| bytes < 1024 * 1024) {
            return Err(("request_memory_bytes", "must be at least 1048576 (1 MiB)"));
        }
        if self.scratch_bytes < 1024 * 1024 {
            return Err(("scratch_bytes", "must be at least 1048576 (1 MiB)"));
        }
        if self.start_timeout_s == 0 || self.start_timeout_s > LONGEST_START_S {
            return Err((
                "start_timeout_s",
                "must be a number of seconds that is not 0, and at most an hour",
            ));
        }
        Ok(())
    }
}

/// A label of the domain name system, as names of namespaces are.
fn is_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = name.as_bytes();
    let ends_plain = bytes.first().copied().is_some_and(plain) && bytes.last().copied().is_some_and(plain);
    ends_plain && bytes.len() <= 63 && bytes.iter().all(|byte| plain(*byte) || *byte == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Config {
        Config {
            namespace: "sandboxes".into(),
            advertise: "10.0.0.7".into(),
            tools_image: "cofferdam:1".into(),
            ..Config::default()
        }
    }

    #[test]
    fn the_port_of_listening_is_the_one_that_sandboxes_are_told() {
        assert_eq!(good().check(), Ok(()));
        assert_eq!(good().advertised(), Some("10.0.0.7:8473".parse().unwrap()));
        let mut other = good();
        other.advertise = "[fd00::7]:9000".into();
        assert_eq!(other.advertised(), Some("[fd00::7]:9000".parse().unwrap()));
    }

    #[test]
    fn what_makes_no_sense_is_named_by_its_key() {
        type Spoil = fn(&mut Config);
        let cases: [(&str, Spoil); 12] = [
            ("namespace", |config| config.namespace = "Sandboxes".into()),
            ("namespace", |config| config.namespace.clear()),
            ("listen", |config| config.listen.set_port(0)),
            ("advertise", |config| config.advertise = "worker.example".into()),
            ("advertise", |config| config.advertise = "0.0.0.0".into()),
            ("tools_image", |config| config.tools_image.clear()),
            ("tools_program", |config| config.tools_program = "inside".into()),
            ("pod_name", |config| config.pod_uid = Some("1".into())),
            ("seccomp_profile", |config| config.seccomp_profile = Some("../x".into())),
            ("request_cpus", |config| config.request_cpus = Some(f64::NAN)),
            ("lease_s", |config| config.lease_s = 4),
            ("start_timeout_s", |config| config.start_timeout_s = 0),
        ];
        for (key, spoil) in cases {
            let mut config = good();
            spoil(&mut config);
            assert_eq!(config.check().unwrap_err().0, key);
        }
    }
}
